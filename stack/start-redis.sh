#!/bin/sh
# Starts Redis with its users: makes the passwords that are missing, and keeps of them only
# hashes where Redis reads them.
set -eu

# In memory, and gone with the container.
run=/data

new_password() {
    head -c 32 /dev/urandom | sha256sum | cut -c -64
}

hash_of() {
    printf %s "$(cat "$1")" | sha256sum | cut -c -64
}

# Each side's containers run as another user than this one, so everybody may read the file. But each
# side mounts only the volume with its own file.
for side in frontend order; do
    file=/secrets/$side/password
    if [ ! -s "$file" ]; then
        new_password > "$file.new"
        chmod 444 "$file.new"
        mv "$file.new" "$file"
        echo "made a password for the user $side"
    fi
done

# For redis-cli inside this container, new at each start.
(umask 077; new_password > "$run/operator-password")

# The rules apply inside scripts too: these are the commands that frontend/quotes/scripts use, INFO
# among them, with which each script asks whether this server is still the same primary.
(umask 077; cat > "$run/users.acl") <<EOF
user default on #$(hash_of "$run/operator-password") ~* &* +@all
user frontend on #$(hash_of /secrets/frontend/password) ~bourse:cache:* &bourse:invalidations -@all +eval +evalsha +time +info +get +set +del +hget +hset +hdel +zadd +zrem +zcard +zscore +zrange +zrevrange +zrangebyscore +subscribe +unsubscribe +ping
user order on #$(hash_of /secrets/order/password) &bourse:invalidations -@all +publish
EOF

exec "$@" --aclfile "$run/users.acl"
