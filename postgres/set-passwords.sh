#!/bin/sh
# Gives roles the passwords that are in this container's files; all roles, if none are named.
# It must run on the primary.
set -eu

[ $# -gt 0 ] || set -- replicator rewind bourse
for role in "$@"; do
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres <<SQL
\set password \`cat /run/passwords/$role\`
ALTER ROLE $role PASSWORD :'password';
SQL
done
