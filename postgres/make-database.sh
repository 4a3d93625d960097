#!/bin/sh
# Patroni runs it once, on the first primary, before any other node is there: makes the catalog's
# database and its owner. The tables are the catalog's affair.
set -eu

# Else a COMMIT would wait for a standby, and no standby can join before this has ended.
export PGOPTIONS="-c synchronous_commit=local"
export PGDATABASE=postgres

# With the right to see which standbys there are, and which of them are synchronous.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<SQL
CREATE ROLE bourse LOGIN CONNECTION LIMIT 30;
GRANT pg_read_all_stats TO bourse;
CREATE DATABASE bourse OWNER bourse;
REVOKE ALL ON DATABASE bourse FROM PUBLIC;
SQL

set-passwords bourse
