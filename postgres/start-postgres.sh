#!/bin/sh
# Writes what Patroni must know of this node, with the passwords, to memory. Then runs its arguments.
set -eu

# As `patronictl` and the other nodes call this one. It is its name on the network too.
name=$PATRONI_NAME
passwords=/run/passwords
replicator=$(cat "$passwords/replicator")
rewind=$(cat "$passwords/rewind")
rest_api=$(cat "$passwords/rest-api")

# Who may read only needs no password. Who changes something does.
(umask 077; cat > /run/postgresql/this-node.yml) <<YAML
name: $name
restapi:
  connect_address: $name:8008
  authentication: { username: patroni, password: $rest_api }
postgresql:
  connect_address: $name:5432
  authentication:
    superuser: { username: postgres }
    replication: { username: replicator, password: $replicator }
    rewind: { username: rewind, password: $rewind }
YAML

exec "$@"
