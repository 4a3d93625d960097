#!/bin/sh
# Makes the passwords that are missing, and writes the catalog's in the form in which libpq reads it.
set -eu
# libpq ignores a password file that others may read.
umask 077

of_postgres=${1:-/secrets/postgres}
of_catalog=${2:-/secrets/catalog}

# Only letters and digits: no file that it gets into has to quote it.
new_password() {
    head -c 32 /dev/urandom | sha256sum | cut -c -64
}

for role in replicator rewind rest-api bourse; do
    file=$of_postgres/$role
    if [ ! -s "$file" ]; then
        new_password > "$file.new"
        mv "$file.new" "$file"
        echo "made a password for $role"
    fi
done

# host:port:database:user:password
printf '*:*:bourse:bourse:%s\n' "$(cat "$of_postgres/bourse")" > "$of_catalog/catalog.new"
mv "$of_catalog/catalog.new" "$of_catalog/catalog"
