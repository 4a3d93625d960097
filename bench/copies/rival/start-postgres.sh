#!/bin/sh
# Starts PostgreSQL with the options that it is given. The first start makes the database, and
# fills it where no client can connect yet.
set -eu

data=/data/postgres
draft=/data/draft
# In memory: nothing but the volume can be written to otherwise.
sockets=/tmp

if [ ! -d "$data" ]; then
    rm -rf "$draft"
    # Everybody may connect who is on the inner network. The data is made up.
    initdb --pgdata "$draft" --username plain --locale=C --encoding=UTF8 --auth=trust
    echo "host all all all trust" >> "$draft/pg_hba.conf"
    pg_ctl --pgdata "$draft" --wait --options "-c listen_addresses= -k $sockets" start
    psql --host "$sockets" --username plain --dbname postgres --quiet --file /usr/local/share/fill.sql
    pg_ctl --pgdata "$draft" --wait stop
    # Only now: a first start that is broken off begins again.
    mv "$draft" "$data"
fi

exec postgres -D "$data" -k "$sockets" -c listen_addresses='*' "$@"
