#!/bin/sh
# What the boot asks of systemd, for a container without it. Before it starts the engine it
# does what the unit's RequiresMountsFor says, as systemd would; then it loads the base images, which
# an instance would pull.
set -eu

mount_what_it_needs() {
    for path in $(sed -n 's/^RequiresMountsFor=//p' /etc/systemd/system/docker.service.d/*.conf); do
        for place in $(awk '$2 ~ /^\// { print $2 }' /etc/fstab) "$path"; do
            case "$path/" in "$place"/*) ;; *) continue ;; esac
            source=$(awk -v place="$place" '$2 == place { print $1 }' /etc/fstab)
            case "$source" in /srv/*) mountpoint -q /srv/bourse || mount /srv/bourse ;; esac
            mountpoint -q "$place" || mount "$place"
        done
    done
}

start_engine() {
    ! docker info >/dev/null 2>&1 || return 0
    mount_what_it_needs
    rm -f /run/docker.pid /run/containerd/containerd.pid
    setsid dockerd >>/var/log/dockerd.log 2>&1 </dev/null &
    for _ in $(seq 120); do
        if docker info >/dev/null 2>&1; then break; fi
        sleep 0.5
    done
    docker image inspect python:3.13-slim >/dev/null 2>&1 || docker load --quiet --input /images.tar
}

case "$*" in
daemon-reload) ;;
"enable --now docker") start_engine ;;
*)
    echo "systemctl: not known here: $*" >&2
    exit 1
    ;;
esac
