#!/bin/sh
# Runs uv: the one on the PATH if it is recent enough, else a private one in .uv/, which pip
# fetches the first time. Needs python3 with pip or venv, and nothing else.
set -eu

wanted=0.13.9
oldest=0.8.0
private=$(cd "$(dirname "$0")/.." && pwd)/.uv

version_of() {
    "$1" --version 2>/dev/null | sed -n 's/^uv \([0-9.]*\).*/\1/p'
}

is_recent() {
    [ -n "$1" ] && [ "$(printf '%s\n' "$oldest" "$1" | sort -V | head -n 1)" = "$oldest" ]
}

fetch() {
    echo "fetching uv $wanted into $private" >&2
    rm -rf "$private"
    mkdir -p "$private"
    echo '*' >"$private/.gitignore"
    # --target leaves the system's Python alone, so Debian's pip does not refuse it.
    if python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip install --quiet --target "$private" "uv==$wanted"
    elif python3 -m venv "$private/venv" >/dev/null 2>&1; then
        "$private/venv/bin/pip" install --quiet --target "$private" "uv==$wanted"
    else
        rm -rf "$private"
        echo "uv is missing and cannot be fetched: install uv, or python3 with its pip or venv" >&2
        exit 1
    fi
}

if is_recent "$(version_of uv)"; then
    exec uv "$@"
fi
[ "$(version_of "$private/bin/uv")" = "$wanted" ] || fetch
exec "$private/bin/uv" "$@"
