#!/bin/bash
# Checks the settings, then runs its arguments: HAProxy. A wrong setting ends it with one line that names it.
set -euo pipefail

config=/usr/local/etc/haproxy/haproxy.cfg

wrong() {
    echo "edge: setting $1='${!1}': $2" >&2
    exit 2
}

# An empty setting counts as none.
default() {
    [[ -n ${!1:-} ]] || export "$1=$2"
}

# The setting $1 is an integer from $2 to $3.
integer() {
    [[ ${!1} =~ ^(0|[1-9][0-9]{0,6})$ ]] && ((${!1} >= $2 && ${!1} <= $3)) || wrong "$1" "must be an integer from $2 to $3"
}

default WEB_CONCURRENCY 1
default WEB_THREADS 32
default RATE_LIMIT 0
default SHUTDOWN_GRACE_S 10
default FRONTEND_ADDRESS frontend:26111
integer WEB_CONCURRENCY 1 1000
integer WEB_THREADS 1 10000
integer RATE_LIMIT 0 1000000
[[ $SHUTDOWN_GRACE_S =~ ^[0-9]{1,4}(\.[0-9]+)?$ && $SHUTDOWN_GRACE_S =~ [1-9] ]] || wrong SHUTDOWN_GRACE_S "must be a number of seconds above 0"

SHUTDOWN_GRACE_MS=$(printf %.0f "${SHUTDOWN_GRACE_S}e3")
# As many requests at once as a frontend has threads, save two for health checks.
FRONTEND_REQUESTS=$((WEB_CONCURRENCY * WEB_THREADS - 2))
((FRONTEND_REQUESTS >= 1)) || FRONTEND_REQUESTS=1
export SHUTDOWN_GRACE_MS FRONTEND_REQUESTS

((RATE_LIMIT > 0)) || unset RATE_LIMIT
if [[ -z ${TLS_PEM_FILE:-} ]]; then
    unset TLS_PEM_FILE
elif [[ ! -r $TLS_PEM_FILE ]]; then
    wrong TLS_PEM_FILE "the user $(id -un), number $(id -u), cannot read it"
elif ! haproxy -c -q -f "$config" 2> /dev/null; then
    wrong TLS_PEM_FILE "holds no certificate with its private key, in the form PEM"
fi

exec "$@"
