"""What the place of a published store keeps of files that were removed, and how that is deleted."""

from __future__ import annotations

import shlex

from voxblink2_lib.published.hub import HubPlace
from voxblink2_lib.published.place import Place

# Names at the URL have no white space.
_DELETE_VERSIONS = (
    "aws s3api list-object-versions --bucket {bucket} --prefix {prefix} --output text --query "
    "'{query}' | while read -r key version; do aws s3api delete-object --bucket {bucket} "
    '--key "$key" --version-id "$version"; done'
)
FORMER_VERSIONS = "[Versions, DeleteMarkers][] | [?IsLatest==`false`].[Key, VersionId]"
_SQUASH = (
    'python -c "from huggingface_hub import HfApi; '
    "HfApi().super_squash_history('{data_set}', repo_type='dataset')\""
)


def kept_versions(place: Place) -> str:
    """Return what a place keeps, with the command that deletes it; empty if it keeps nothing."""
    if isinstance(place, HubPlace):
        return (
            f"The history of the data set {place.data_set} has all that was removed. Make it one "
            f"commit with: {_SQUASH.format(data_set=place.data_set)} Then delete the files that "
            "only the history had: 'List LFS files' in the settings of the data set shows them."
        )
    keeps = place.keeps_versions()
    if keeps is None:
        return (
            f"Whether {place} keeps versions of what was removed, or undoes a removal for some "
            "days, cannot be seen from here: look into the settings of its bucket."
        )
    return f"The bucket of {place} keeps versions of what was removed. {_advice(place)}" * keeps


def _advice(place: Place) -> str:
    bucket, _, prefix = place.url.partition("://")[2].partition("/")
    command = _DELETE_VERSIONS.format(
        bucket=shlex.quote(bucket), prefix=shlex.quote(f"{prefix}/"), query=FORMER_VERSIONS
    )
    return f"Delete them with: {command}"
