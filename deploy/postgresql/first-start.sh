#!/bin/sh
# The postgres image runs this once, when its volume is empty: it creates the two roles of roles.sql.
set -eu
exec psql --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set "owner_password=$ROOTNOTE_OWNER_PASSWORD" --set "app_password=$ROOTNOTE_APP_PASSWORD" \
    --file "${ROLES_SQL:-/roles.sql}"
