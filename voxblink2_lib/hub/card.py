"""The card of a data set for others: what a stranger who finds it has to know.

It is made of the record alone. What its owner writes outside of the marks stays, and so do keys of
the head that are not ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from voxblink2_lib.hub.record import PublishedConfig, Record
from voxblink2_lib.outcomes import POLICIES, Status
from voxblink2_lib.progress import size_text
from voxblink2_lib.published.hub import DATA_SET_RECORD
from voxblink2_lib.published_results import CITATION, HOMEPAGE, LICENSE
from voxblink2_lib.records import SAMPLE_RATE_HZ

_BEGIN, _END = "<!-- voxblink2: begin -->", "<!-- voxblink2: end -->"
_SIZES = ("1K", "10K", "100K", "1M", "10M")
_COLUMNS = {
    "audio": f"the clip, mono, {SAMPLE_RATE_HZ // 1000} kHz",
    "video": "the speaker's face, MP4 at 25 frames a second",
    "speaker_id": "who speaks: a label of the corpus, not a name",
    "video_id": "the video that the clip was cropped from",
    "utterance_id": "which utterance of the video",
    "start_seconds": "where the clip begins in the video",
    "end_seconds": "where it ends; the range is half-open",
    "source": "where the video came from",
    "boxes": "the face in each frame of the video: x, y, width and height in pixels",
    "boxes_fit": "whether the boxes fit the frames of the video",
    "boxes_evidence": "by what that is known",
    "transcript": "what is said, by a machine, where the release has it",
    "language": "of the transcript",
    "speaker_gender": "as the release has it",
    "speaker_language": "as the release has it",
    "speaker_location": "as the release has it",
    "speaker_tags": "as the release has them",
}
# Planned ones were not asked for yet.
_NOT_LOST = ("done", "planned")


def card_of(name: str, record: Record, before: str = "") -> str:
    """Return the text of a card.

    Args:
        name: of the data set, as ``USER/NAME``.
        record: what the data set has.
        before: the card that is there.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    # It warns of a card without a head.
    former = DatasetCard(before if before.startswith("---") else f"---\n{{}}\n---\n{before}")
    head = DatasetCardData(**{**vars(former.data), **vars(_head(name, record))}).to_yaml()
    block = "\n".join([_BEGIN, *_body(name, record), _END])
    start, stop = former.text.find(_BEGIN), former.text.find(_END)
    if -1 < start < stop:
        text = former.text[:start] + block + former.text[stop + len(_END) :]
    else:
        text = f"{block}\n\n{former.text.strip()}".rstrip() + "\n"
    return f"---\n{head}\n---\n\n{text.lstrip()}"


def _head(name: str, record: Record) -> Any:
    """Return the metadata that the Hub and ``datasets`` read."""
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    languages = sorted({code for config in record.values() for code in config.languages})
    tasks = ["audio-classification"]
    tasks += ["automatic-speech-recognition"] if languages else []
    tasks += ["video-classification"] if "audio-visual" in record else []
    data = DatasetCardData(
        language=languages or None,
        license="other",
        license_name="annotations-cc-by-nc-sa-4.0-media-of-their-owners",
        license_link=HOMEPAGE,
        pretty_name=name.rpartition("/")[2],
        size_categories=[_size_category(max(config.utterances for config in record.values()))],
        task_categories=tasks,
        tags=["speaker-recognition", "speaker-verification", "speech", "voxblink2"],
    )
    infos = {config: _info(config, published) for config, published in record.items()}
    DatasetInfosDict(infos).to_dataset_card_data(data)
    # The first one is what is loaded where no configuration is named.
    configs = {
        config: {
            "data_files": [
                {"split": split, "path": f"{config}/{split}/*.parquet"}
                for split in published.splits
            ],
            **({"default": True} if config == min(record) else {}),
        }
        for config, published in record.items()
    }
    MetadataConfigs(configs).to_dataset_card_data(data)
    return data


def _info(name: str, published: PublishedConfig) -> Any:
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo

    splits = SplitDict()
    for split, size in published.splits.items():
        splits.add(SplitInfo(split, num_bytes=size.size_bytes, num_examples=size.utterances))
    return DatasetInfo(
        config_name=name,
        features=Features.from_dict(published.features),
        splits=splits,
        download_size=published.size_bytes,
        dataset_size=published.size_bytes,  # clips are stored as they are
    )


def _size_category(rows: int) -> str:
    """Return the class of size that the Hub has for so many rows.

    >>> _size_category(14), _size_category(25_000), _size_category(9_900_000)
    ('n<1K', '10K<n<100K', '1M<n<10M')
    """
    bounds = [1000 * 10**power for power in range(len(_SIZES))]
    passed = sum(rows >= bound for bound in bounds)
    if passed == 0:
        return f"n<{_SIZES[0]}"
    return f"{_SIZES[passed - 1]}<n<{_SIZES[passed]}" if passed < len(_SIZES) else "10M<n<100M"


# -- Text ------------------------------------------------------------------------------------------


def _body(name: str, record: Record) -> Iterator[str]:
    first = min(record)
    faces = ", also with the speaker's face," if "audio-visual" in record else ""
    yield from (
        f"# {name.rpartition('/')[2]}",
        "",
        f"Utterances of many speakers, cropped from videos{faces} to train and test systems that "
        f"recognize speakers. It is what could be had of the corpus [VoxBlink2]({HOMEPAGE}) when "
        "this was made.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'ds = load_dataset("{name}", "{first}", split="train", streaming=True)',
        "row = next(iter(ds))",
        "```",
        "",
        "No other package is needed; to decode clips, `pip install 'datasets[audio]'`. Without "
        "`streaming=True` all of it is downloaded first. `ds.decode(False)` gives the clips as "
        "they are stored.",
        "",
        "## What is in it",
        "",
        "| configuration | split | utterances | size |",
        "|---|---|---:|---:|",
    )
    for config, published in sorted(record.items()):
        for split, size in published.splits.items():
            counts = f"{size.utterances:,} | {size_text(size.size_bytes)}"
            yield f"| `{config}` | `{split}` | {counts} |"
    yield ""
    if any("validation" in published.splits for published in record.values()):
        yield from ("No speaker is in both `train` and `validation`.", "")
    yield from _columns(record)
    for config, published in sorted(record.items()):
        title = f": `{config}`" if len(record) > 1 else ""
        yield from _coverage(title, published)
        yield from _provenance(title, published)
    yield from _rights(name)


def _columns(record: Record) -> Iterator[str]:
    names = dict.fromkeys(name for config in record.values() for name in config.features)
    yield from ("| column | |", "|---|---|")
    for name in names:
        yield f"| `{name}` | {_COLUMNS.get(name, '')} |"
    yield ""


def _coverage(title: str, published: PublishedConfig) -> Iterator[str]:
    yield from (f"## How complete it is{title}", "")
    if published.selection:
        yield from (f"It is a selection: {_listed(published.selection)}.", "")
    yield from (
        "The annotations of the corpus name what could be here; the rest is missing because its "
        "videos are.",
        "",
        "| | here | in the annotations | share |",
        "|---|---:|---:|---:|",
    )
    for what, count in published.present.items():
        whole = published.annotated.get(what)
        share = f"{whole:,} | {count / whole:.1%}" if whole else "unknown | unknown"
        yield f"| {what} | {count:,} | {share} |"
    yield from (f"| hours | {published.hours:,.2f} | | |", "")
    lost = {
        status: count
        for status, count in published.outcomes.items()
        if status not in _NOT_LOST and count
    }
    if lost:
        yield from (
            "Why videos of the annotations are not here, as their source answered:",
            "",
            "| class | meaning | videos |",
            "|---|---|---:|",
        )
        for status, count in sorted(lost.items(), key=lambda item: -item[1]):
            yield f"| {status} | {POLICIES[cast(Status, status)].description} | {count:,} |"
        yield ""
    if planned := published.outcomes.get("planned"):
        yield from (f"Another {planned:,} videos were not asked for yet.", "")
    if published.missing_utterances:
        count = published.missing_utterances
        yield from (f"{count:,} utterances of videos that came could not be cropped.", "")
    if published.purged:
        count = published.purged
        yield from (f"{count:,} speakers, videos or utterances were removed on request.", "")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`: {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, dict) and "ids" in value:  # many ids, by their number and a digest
        return f"{value['ids']:,} ids"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _provenance(title: str, published: PublishedConfig) -> Iterator[str]:
    settings = {name: value for name, value in published.settings.items() if value}
    fingerprint = f"fingerprint `{published.annotations}`"
    annotations = fingerprint if published.annotations else "none, since the clips came as files"
    yield from (
        f"## Where it comes from{title}",
        "",
        f"- annotations: {annotations}",
        f"- store of clips: {len(published.shards):,} shards, digest `{published.store}`; their "
        f"SHA-256 are in `{DATA_SET_RECORD}`",
        f"- made by: {published.made_by}",
    )
    if published.made_with:
        yield f"- decoded by: {'; '.join(published.made_with)}"
    if settings:
        yield f"- cropping: {_listed(settings)}"
    yield from (
        "- audio: cropped from the decoded signal at 16 kHz, to the sample, at the level of the "
        "source",
        "",
    )


def _rights(name: str) -> Iterator[str]:
    yield from (
        "## Licence",
        "",
        f"{LICENSE} The annotations may not be used commercially. Whoever publishes this data set "
        "holds no rights in the voices and pictures, and can grant none: whether you may use them "
        "is for you to find out. Do not use them to learn who somebody is, to imitate somebody, or "
        "to watch people.",
        "",
        "## If you are in it",
        "",
        "You may ask to be removed, whoever published the video and whatever its licence. Open a "
        f"[discussion](https://huggingface.co/datasets/{name}/discussions) and name the video's "
        "address or its `video_id`; a reason is not needed. The owner of this data set then runs",
        "",
        "```",
        "voxblink2 purge VIDEO_ID --store STORE",
        f"voxblink2 publish hf://datasets/{name} --store STORE",
        "```",
        "",
        "which takes the clips out of the data set, and out of its history. Whoever has downloaded "
        "it should compare their copy with this one from time to time, and delete what is not here "
        "any more.",
        "",
        "## Citation",
        "",
        "```bibtex",
        CITATION.strip(),
        "```",
    )
