#!/bin/sh
# Install a Debian package, or print what to do if that is not possible.
#   sh tools/debian.sh PACKAGE WHAT     for example: sh tools/debian.sh chromium "Chromium"
set -eu

log() { printf '%s\n' "$*" >&2; }

log "$1 is missing; installing it with apt."
if ! command -v apt-get >/dev/null 2>&1; then
    log "There is no apt-get. Install $2, then run this again."
    exit 2
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        log "Neither root nor sudo: ask an administrator for 'apt-get install $1'."
        exit 2
    fi
    sudo=sudo
fi
$sudo apt-get update -q >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$1" >&2
