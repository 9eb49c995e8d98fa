"""Arguments of the command line: made from the declared options, and read into a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxblink2_lib.cli import _parser
from voxblink2_lib.cli.arguments import build_request
from voxblink2_lib.materialize.request import MaterializeRequest, user_options
from voxblink2_lib.records import option_string
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions


def test_materialize_has_every_option_and_leaves_all_out_by_default() -> None:
    options = _parser().parse_args(["materialize"])
    given = {name: getattr(options, name) for name in user_options()}
    assert given == dict.fromkeys(user_options())
    assert options.forget == []
    assert build_request(options) == MaterializeRequest()


def test_every_option_reaches_the_request(tmp_path: Path) -> None:
    jars = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    patterns = str(tmp_path / "patterns.toml")
    for path in (*jars, patterns):
        Path(path).touch()
    words = [
        *("materialize", "--config", "audio-visual", "--data-dir", "release", "--store", "store"),
        *("--source", "https://x/{video_id}", "--workers", "3", "--audio-format", "opus"),
        *("--video-size", "64", "--video-margin", "0.5", "--video-shape", "stretched"),
        *("--video-crf", "9", "--speakers", "id000001", "id000002", "--videos=-bcdefghijk"),
        *("--exclude", "id000003", "--max-speakers", "5", "--max-videos-per-speaker", "4"),
        *("--proxy", "http://a:1", "--proxy", "http://b:2", "--budget", "20", "--sleep", "1.5"),
        *("--cookies", jars[0], "--cookies", jars[1], "--limit-rate", "500K"),
        *("--extractor-args", "a:b=c", "--extractor-args", "d:e=f", "--yt-dlp=--force-ipv4"),
        *("--fetches", "7", "--reasons", patterns),
    ]
    assert build_request(_parser().parse_args(words)) == MaterializeRequest(
        config="audio-visual",
        data_dir="release",
        source="https://x/{video_id}",
        store="store",
        workers=3,
        clips={
            "audio_format": "opus",
            "video_size": 64,
            "video_margin": 0.5,
            "video_shape": "stretched",
            "video_crf": 9,
        },
        selection=Selection(
            speakers=frozenset({"id000001", "id000002"}),
            videos=frozenset({"-bcdefghijk"}),
            exclude=frozenset({"id000003"}),
            max_speakers=5,
            max_videos_per_speaker=4,
        ),
        fetch=FetchOptions(
            proxy=("http://a:1", "http://b:2"),
            cookies=(jars[0], jars[1]),
            budget=20,
            sleep=1.5,
            limit_rate="500K",
            extractor_args=("a:b=c", "d:e=f"),
            yt_dlp="--force-ipv4",
            fetches=7,
            reasons=patterns,
        ),
    )


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("index", {"data_dir", "store", "scratch"}),
        ("status", {"config", "data_dir", "store"}),
        ("verify", {"config", "data_dir", "store"}),
        ("doctor", {"config", "data_dir", "store", "source", "proxy", "cookies"}),
        ("demo", {"config", "workers"}),
        (
            "retry --class gone",
            {
                *("config", "data_dir", "store", "scratch", "shard_of_jobs", "source", "workers"),
                *FetchOptions.names(),
            },
        ),
    ],
)
def test_other_commands_have_some_of_the_options(command: str, names: set[str]) -> None:
    options = _parser().parse_args(command.split())
    assert vars(options).keys() & user_options().keys() == names
    assert build_request(options) == MaterializeRequest()


def test_the_help_of_every_option_says_what_it_does_in_one_line() -> None:
    for name, option in user_options().items():
        assert option.help, name
        assert not option.help.endswith("."), name
        assert "\n" not in option.summary, name
        assert option.choices or option.metavar or option.values == "none", name
        assert option_string(name) == f"--{name.replace('_', '-')}"
