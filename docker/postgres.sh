#!/bin/sh
# A database server whose data is made when it is not there. As root it becomes the user postgres.
set -eu
data=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
    chown postgres "$data"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0"
fi
if [ ! -s "$data/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --encoding=UTF8 -D "$data" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile=/tmp/password
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    pg_ctl -D "$data" -o "-c listen_addresses= -c unix_socket_directories=/tmp" -w start
    for file in /docker-entrypoint-initdb.d/*.sql; do
        PGPASSWORD=$POSTGRES_PASSWORD psql -h /tmp -U "$POSTGRES_USER" -d postgres -v ON_ERROR_STOP=1 -f "$file"
    done
    pg_ctl -D "$data" -w stop
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
