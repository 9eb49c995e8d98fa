"""The command line: help, JSON, exit codes, words."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support import cli_process

from voxblink2_lib.cli import main
from voxblink2_lib.media.options import ClipOptions

FACES = ["materialize", "--config", "audio-visual", "--data-dir", "demo"]
COMMANDS = ["demo", "index", "materialize", "status", "verify", "convert", "embed"]
COMMANDS += ["score sv", "score ossi", "retry", "doctor", "report"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert f"example:\n  voxblink2 {command}" in output
    assert "exit codes: 0 done" in output
    assert "--json" in output


def test_help_shows_the_options_of_faces(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["materialize", "--help"])
    output = " ".join(capsys.readouterr().out.split())
    assert "--config {audio,audio-visual}" in output
    assert "the defaults are those of a new store, an existing store keeps its values" in output
    for option, words in {
        "--video-size PIXELS": "from 32 to 1024; default: 112",
        "--video-margin FRACTION": "from 0 to 2; default: 0 ",
        "--video-shape {square,stretched}": "distort the box to a square; default: square",
        "--video-crf N": f"0 (lossless) to 51 (worst); default: {ClipOptions().video_crf}",
    }.items():
        _, separator, rest = output.partition(f" {option} ")
        assert separator, option
        assert words in rest.partition(" --")[0] + " "


def test_examples_of_the_help_parse(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        example = capsys.readouterr().out.split("example:\n")[1].split("\n\n")[0]
        words = example.replace("\\\n", " ").split()
        assert words[: 1 + len(command.split())] == ["voxblink2", *command.split()]
        # Every option of the example exists: argparse would end with 2 otherwise.
        with pytest.raises(SystemExit) as ended:
            main([*words[1:], "--help"])
        assert ended.value.code == 0
        capsys.readouterr()


def test_help_imports_nothing_heavy() -> None:
    """In one process: what any of them imported would be there at the end."""
    code = (
        "import json, sys\n"
        "from voxblink2_lib.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main([*command.split(), '--help'])\n"
        "    except SystemExit:\n"
        "        pass\n"
        "print('heavy:', sorted({'datasets', 'torch', 'yt_dlp', 'av'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, json.dumps(["", *COMMANDS])]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert said.count("usage: voxblink2") == 1 + len(COMMANDS)
    assert said.endswith("heavy: []\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required"),
        (["fly"], "invalid choice: 'fly'"),
        (["materialize", "--config", "video"], "invalid choice: 'video'"),
        (["materialize", "--max-speakers", "many"], "invalid int value: 'many'"),
        (["materialize", "--video-size", "112.5"], "invalid int value: '112.5'"),
        (["materialize", "--video-margin", "wide"], "invalid float value: 'wide'"),
        (["materialize", "--video-shape", "round"], "invalid choice: 'round'"),
        (["materialize", "--video-crf", "best"], "invalid int value: 'best'"),
        (["status", "--config", "faces"], "invalid choice: 'faces'"),
        (["score"], "required: COMMAND"),
        (["score", "asr"], "invalid choice: 'asr'"),
        (["convert", "x.pt"], "required: OUT"),
        (["convert", "x.pt", "out", "--onnx-int16"], "--onnx-int16 goes with --onnx, which is"),
        (["convert", "x.pt", "out", "--arch", "resnet50"], "invalid choice: 'resnet50'"),
        (["embed", "--model", "x"], "required: --out, --audio/--wav-scp"),
        (["embed", "--window", "all"], "invalid float value: 'all'"),
        (["embed", "--dtype", "float16"], "invalid choice: 'float16'"),
        (["score", "sv", "--embeddings", "x"], "required: --trials"),
        (["score", "ossi", "--embeddings", "x"], "required: --protocol"),
        (["score", "sv", "--interval", "videos"], "invalid choice: 'videos'"),
        (["score", "sv", "--missing", "drop"], "invalid choice: 'drop'"),
        (["score", "sv", "--p-target", "often"], "invalid float value: 'often'"),
        (["score", "ossi", "--method", "best"], "invalid choice: 'best'"),
        (["score", "ossi", "--enrolment", "sum"], "invalid choice: 'sum'"),
    ],
)
def test_wrong_words_end_with_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    output = capsys.readouterr()
    assert message in output.err.splitlines()[0]
    assert len(output.err.splitlines()) <= 3
    assert output.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["materialize"], "No release was named"),
        (["materialize", "--source", str(Path(__file__).parent)], "has no cut audio, which would"),
        (["materialize", "--data-dir", "/nowhere"], "The release /nowhere does not exist"),
        (["materialize", "--data-dir", "demo", "--source", "ftp://x/{video_id}"], "http://"),
        (["materialize", "--data-dir", "demo", "--source", "http://x/video"], "contain {video_id}"),
        (["materialize", "--data-dir", "demo", "--speakers", "../x"], "neither a speaker id nor"),
        (["materialize", "--data-dir", "demo", "--workers", "0"], "workers must be"),
        (["materialize", "--data-dir", "demo", "--store", "nosuch://x/y"], "Protocol not known"),
        (["materialize", "--data-dir", "demo", "--store", "https://x/y"], "can only be read"),
        (["status", "--store", ""], "store is an empty text"),
        (
            ["materialize", "--data-dir", "demo", "--source", ""],
            "source must be a text that is not empty",
        ),
        (
            ["materialize", "--data-dir", "demo", "--source", "http://x/{speaker_id}/{video_id}"],
            "contains {speaker_id}; only {video_id} is filled in",
        ),
        (
            [*FACES, "--video-size", "63"],
            "video_size must be an even number of pixels from 32 to 1024, got 63",
        ),
        (
            [*FACES, "--video-margin", "nan"],
            "video_margin must be a number from 0 to 2",
        ),
        (
            [*FACES, "--video-crf", "-1"],
            "video_crf must be a whole number from 0 (lossless) to 51, got -1",
        ),
        (
            ["materialize", "--data-dir", "demo", "--video-shape", "square"],
            "video_shape would change nothing in the configuration 'audio'",
        ),
        (["status", "--store", "/nowhere"], "There is no store at /nowhere"),
        (["verify", "--store", "/nowhere"], "There is no store at /nowhere"),
    ],
)
def test_bad_input_ends_with_2_and_one_plain_line(words: list[str], message: str) -> None:
    result = cli_process.run_inline(*words, code=2)
    assert message in result.stderr
    assert result.stderr.startswith("voxblink2: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_the_process_ends_with_the_exit_code(copy: Path) -> None:
    """3 and 4 are those of processes that are stopped, and refused, in `end_to_end`."""
    assert "16 done" in cli_process.run("status", "--store", copy, code=0).stdout
    (copy / "shards" / "audio" / "audio-00003.arrow").unlink()
    cli_process.run("verify", "--store", copy, code=1)
    result = cli_process.run("materialize", code=2)
    assert result.stderr.startswith("voxblink2: No release was named")
    assert "Traceback" not in result.stderr


def test_index_materialize_status_verify(tmp_path: Path) -> None:
    store = tmp_path / "store"
    index = cli_process.run_inline_json("index", "--data-dir", "demo", "--store", store)
    assert (index["speakers"], index["videos"], index["utterances"]) == (8, 18, 54)
    assert index["rejected"] == 0
    words = ("materialize", "--config", "audio", "--data-dir", "demo", "--store", store)
    made = cli_process.run_inline_json(*words, "--max-speakers", 3)
    assert made["videos"] == {"done": 6, "gone": 1}
    assert made["utterances"] == 18
    assert made["speakers"] == {"complete": 2, "partial": 1, "empty": 0}
    place = ("--config", "audio", "--store", store)
    status = cli_process.run_inline_json("status", *place, "--missing")
    assert {key: status[key] for key in made} == made
    assert [video["video_id"] for video in status["missing"]] == ["demoGone404"]
    assert status["missing"][0]["reason"].startswith("no file id990003/demoGone404.<ext> in")
    verified = cli_process.run_inline_json("verify", *place, "--sample", 3)
    assert verified["problems"] == []
    assert (verified["shards"], verified["rows"], verified["clips_decoded"]) == (6, 18, 18)
    people = cli_process.run_inline("status", "--store", store).stdout
    assert "6 done, 1 gone" in people
    assert "1  gone: no file <speaker>/<video>.<ext>" in people


@pytest.fixture
def copy(undisturbed: Path, tmp_path: Path) -> Path:
    shutil.copytree(undisturbed, tmp_path / "store")
    return tmp_path / "store"


def problems(store: Path) -> list[str]:
    return list(cli_process.run_inline_json("verify", "--store", store, code=1)["problems"])


def test_verify_finds_a_flipped_bit(copy: Path) -> None:
    shard = copy / "shards" / "audio" / "audio-00003.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    (problem,) = problems(copy)
    assert "audio-00003.arrow is damaged: its SHA-256 is" in problem


def test_verify_finds_lost_and_strange_shards(copy: Path) -> None:
    folder = copy / "shards" / "audio"
    (folder / "audio-00003.arrow").rename(folder / "audio-00099.arrow")
    gone, strange = problems(copy)
    assert "audio-00003.arrow is missing" in gone
    assert "audio-00099.arrow is in the folder and not in the ledger" in strange


def test_verify_compares_with_ledger_and_index(copy: Path) -> None:
    database = sqlite3.connect(copy / "ledger.sqlite")
    database.execute("update videos set status = 'gone' where video_id = 'demoHarbour'")
    database.execute("update jobs set rows = 4 where job = 1")
    database.commit()
    database.close()
    lines = problems(copy)
    assert sum("is not in the index or not done in the ledger" in line for line in lines) == 3
    assert sum("has 3 rows, in the ledger it has 4" in line for line in lines) == 1


def test_demo_runs_the_whole_way_behind_a_proxy_too(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    # A process with workers of its own, and a proxy that a loopback site must not be asked by.
    proxy = {"http_proxy": "http://127.0.0.1:9"}
    run = cli_process.run("demo", "--out", out, "--workers", 1, "--json", extra=proxy)
    made = json.loads(run.stdout)
    assert made["videos"] == {"done": 16, "gone": 1, "transient": 1}
    assert made["utterances"] == 48
    assert made["first_row"]["utterance_id"] == "00001"
    reasons = made["missing"]
    assert "HTTP Error 404: Not Found" in reasons["demoGone404"]
    assert "HTTP Error 403: Forbidden" in reasons["demoShut403"]
    assert all(Path(clip).stat().st_size > 10_000 for clip in made["clips"])
    assert Path(made["picture"]).read_bytes().startswith(b"\x89PNG")
    # Again, into the same folder, for people: a fresh store, not an error.
    output = cli_process.run_inline("demo", "--out", out, "--workers", 2).stdout
    assert "id990003  demoGone404  gone: [generic] demoGone404: Unable to download" in output
    assert "id990001  demoHarbour  3 utterances,  8.0 s" in output
    assert "num_rows: 48" in output


def test_demo_leaves_a_store_of_the_user_alone(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "store")
    result = cli_process.run_inline("demo", "--out", tmp_path, code=2)
    assert "is a store that no demo made; it is left alone" in result.stderr
    assert cli_process.shards(tmp_path / "store") == cli_process.shards(undisturbed)


def test_a_video_id_that_begins_with_a_dash(tmp_path: Path) -> None:
    words = ("materialize", "--data-dir", "demo", "--store", tmp_path / "store")
    made = cli_process.run_inline_json(*words, "--videos", "-demoSailor")
    assert made["videos"] == {"done": 1}
    made = cli_process.run_inline_json(*words, "--videos", "demoBicycle", "-demoSailor")
    assert made["videos"] == {"done": 2}


def test_a_run_without_any_clip_is_an_error(tmp_path: Path) -> None:
    media = tmp_path / "media" / "id990001"
    media.mkdir(parents=True)
    (media / "demoHarbour.mp4").write_bytes(b"")
    words = ("materialize", "--data-dir", "demo", "--speakers", "id990001")
    places = ("--store", tmp_path / "store", "--source", tmp_path / "media")
    result = cli_process.run_inline(*words, *places, code=2)
    assert "No video is available, so there is nothing to load" in result.stderr
    assert "1 videos: the media file is empty" in result.stderr
    assert "1 gone, 1 media-unusable" in result.stdout


def test_errors_are_json_as_well() -> None:
    error = cli_process.run_inline_json("materialize", "--data-dir", "/nowhere", code=2)
    assert error["error"] == "ReleaseError"
    assert error["message"].startswith("The release /nowhere does not exist")


def test_json_is_one_object_and_messages_go_elsewhere(tmp_path: Path) -> None:
    meta = tmp_path / "meta" / "id990001" / "demoHarbour"
    meta.mkdir(parents=True)
    (meta / "00001.txt").write_text("FRAME X Y W H\n10 1 1 9 9\n60 1 1 9 9\n")
    (meta / "00002.txt").write_text("FRAME X Y W H\n10 a b c d\n")
    result = cli_process.run_inline(
        "index", "--data-dir", tmp_path, "--store", tmp_path / "store", "--json"
    )
    assert json.loads(result.stdout)["rejected"] == 1
    assert "1 annotation files could not be read and are left out" in result.stderr
    rejects = (tmp_path / "store" / "index" / "rejects.csv").read_text()
    assert '00002.txt,"line 2: expected five numbers, got text"' in rejects
