#!/bin/sh
# Create a virtual environment with voxblink2 in it, and make sure that FFmpeg is installed.
#   sh tools/setup.sh FOLDER WHAT     for example: sh tools/setup.sh .venv ".[dev]"
set -eu

folder=$1
what=$2
python=${PYTHON:-python3}
constraints=${CONSTRAINTS:-constraints.txt}

log() { printf '%s\n' "$*" >&2; }

debian() { sh "$(dirname "$0")/debian.sh" "$@"; }

if ! command -v "$python" >/dev/null 2>&1; then
    debian python3 "Python 3.11 or later"
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    log "Python 3.11 or later is required, $python is $("$python" -V 2>&1)."
    log "Name another Python: make PYTHON=python3.12 ..."
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    debian "python$version-venv" "Python's venv module"
fi
# Debian's package includes the shared libraries that decoding needs, not only the program.
if ! command -v ffmpeg >/dev/null 2>&1; then
    debian ffmpeg "FFmpeg 4 to 8 with its shared libraries"
fi

log "Setting up $folder (the first time this takes a few minutes)."
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install -q --disable-pip-version-check -c "$constraints" -e "$what"
"$folder/bin/python" - <<'END'
import importlib
try:
    importlib.import_module("torchcodec.decoders")
except Exception as error:
    raise SystemExit(
        "torchcodec cannot load FFmpeg's shared libraries; FFmpeg 4 to 8 must be installed with "
        f"them. The error: {str(error).strip().splitlines()[0]}"
    )
END
