#!/bin/sh
# Make a small store with the code of an earlier commit, as those in tests/store/made_by_*: one
# video that is done, and one that is gone, of tests/support/old_corpus.py.
# Usage, in the root of the repository: tests/store/make_old_store.sh COMMIT FOLDER OPTIONS...
set -eu
commit=$1 target=$(realpath -m "$2")
shift 2
code=$(mktemp -d) corpus=/tmp/corpus  # a name that every ledger may mention
trap 'git worktree remove --force "$code"; rm -rf "$corpus"' EXIT
git worktree add --quiet --detach "$code" "$commit"
PYTHONPATH=.:tests python -m support.old_corpus "$corpus"
# An installed voxblink2 comes after PYTHONPATH, and the code must not be that of this folder.
(cd "$corpus" && PYTHONPATH=$code python -m voxblink2_lib.cli materialize --data-dir "$corpus" \
    --source "$corpus/media" --store "$target" --videos video000000 video000001 --workers 1 "$@")
# What is not needed: locks, and what lies beside a ledger that somebody has open.
find "$target" -name '*.lock*' -delete
rm -rf "$target/tmp" "$target/parts" "$target/media" "$target"/ledger.sqlite-*
