#!/bin/sh
# Says what of Docker is missing here or too old for compose.yaml, and exits with 1 then.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

# Whether version $1 is at least $2.
is_recent() {
    [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

compose=$(docker compose version --short 2>/dev/null) || fail "Docker Compose is missing: 2.20.2 or newer is needed"
is_recent "${compose#v}" 2.20.2 || fail "Docker Compose $compose is too old: 2.20.2 or newer is needed"
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || fail "no Docker engine answers"
is_recent "$engine" 25.0 || fail "Docker Engine $engine is too old: 25.0 or newer is needed"
docker buildx version >/dev/null 2>&1 || fail "BuildKit is missing: install Docker's plugin buildx"
