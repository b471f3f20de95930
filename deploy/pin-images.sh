#!/bin/sh
# Prints the base images of the Dockerfile and of compose.yaml with the digests that their tags have now:
#
#   sh deploy/pin-images.sh >> deploy/.env
#
# Compose then builds and runs exactly these images until you replace the lines. It needs Docker and the registry.
set -eu
pin() {
    digest=$(docker buildx imagetools inspect "$2" --format '{{.Manifest.Digest}}')
    case "$digest" in
        sha256:*) echo "$1=$2@$digest" ;;
        *) echo "pin-images.sh: no digest for $2" >&2; exit 1 ;;
    esac
}
pin ROOTNOTE_PYTHON_IMAGE python:3.13-slim-trixie
pin ROOTNOTE_POSTGRES_IMAGE postgres:17
pin ROOTNOTE_CADDY_IMAGE caddy:2
