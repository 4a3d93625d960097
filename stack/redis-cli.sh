#!/bin/sh
# redis-cli for the operator inside the container: as the user who may do everything.
REDISCLI_AUTH=$(cat /data/operator-password)
export REDISCLI_AUTH
PATH=/usr/local/bin:/usr/bin:/bin
exec redis-cli "$@"
