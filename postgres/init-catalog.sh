#!/bin/sh
# Fills the database of a new deployment, and leaves a mark, the file $1. Where the mark is, nothing
# is done: a database that is empty then was lost, and must not be taken for a new one. It tries for
# $2 seconds, because the database may still be starting.
set -eu

mark=$1
give_up_at=$(($(date +%s) + ${2:-240}))

# `migrate` succeeds where a catalog is already: it was restored, or an earlier run was stopped before
# it left its mark.
has_catalog() {
    python -m catalog migrate > /dev/null 2>&1
}

[ ! -e "$mark" ] || exit 0

until said=$(python -m catalog init 2>&1) || { has_catalog && said="the database has a catalog already"; }; do
    if [ "$(date +%s)" -ge "$give_up_at" ]; then
        echo "$said" >&2
        exit 1
    fi
    sleep 1
done
echo "$said"
: > "$mark"
