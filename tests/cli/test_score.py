"""The commands ``score``: the library's numbers, coverage first, errors in one plain line."""

from __future__ import annotations

import functools
import itertools
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import kaldiio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import cli_process

from voxblink2_lib.cli import main
from voxblink2_lib.scoring import (
    evaluate_protocol,
    evaluate_trials,
    read_embeddings,
    read_protocols,
    read_trials,
)

# Eight speakers of VoxCeleb with four utterances each.
NAMES = [f"id{10000 + s}/abcdefghij{s}/{n:05}.wav" for s in range(8) for n in range(4)]
DASHED = [name.removesuffix(".wav").replace("/", "-") for name in NAMES]
_RNG = np.random.default_rng(13)
VECTORS = np.repeat(_RNG.normal(size=(8, 16)), 4, axis=0) + 1.1 * _RNG.normal(size=(32, 16))
VECTORS = VECTORS.astype(np.float32)
COHORT = _RNG.normal(size=(20, 16)).astype(np.float32)
PAIRS = [(i, j) for i in range(32) for j in range(i)]


# -- Files -----------------------------------------------------------------------------------------


def write_parquet(folder: Path, names: Sequence[str], vectors: Any) -> list[str]:
    path = folder / "embeddings.parquet"
    pq.write_table(pa.table({"utterance": list(names), "embedding": list(vectors)}), path)
    return ["--embeddings", str(path)]


def write_npy(folder: Path, names: Sequence[str], vectors: Any) -> list[str]:
    path = folder / "embeddings.npy"
    np.save(path, vectors)
    path.with_suffix(".txt").write_text("".join(f"{name}\n" for name in names))
    return ["--embeddings", str(path)]


def write_npy_and_names(folder: Path, names: Sequence[str], vectors: Any) -> list[str]:
    np.save(folder / "vectors.npy", vectors)
    (folder / "wav.scp").write_text("".join(f"{name} /audio/{name}\n" for name in names))
    return ["--embeddings", str(folder / "vectors.npy"), "--names", str(folder / "wav.scp")]


def write_kaldi(folder: Path, names: Sequence[str], vectors: Any, suffix: str) -> list[str]:
    ark, scp = folder / "xvector.ark", folder / "xvector.scp"
    with kaldiio.WriteHelper(f"ark,scp:{ark},{scp}") as file:
        for name, vector in zip(names, vectors, strict=True):
            file(name, vector)
    return ["--embeddings", str(folder / f"xvector{suffix}")]


def write_pickle(folder: Path, names: Sequence[str], vectors: Any) -> list[str]:
    path = folder / "embeddings.pkl"
    path.write_bytes(pickle.dumps(dict(zip(names, vectors, strict=True))))
    return ["--embeddings", str(path)]


def write_protocol(folder: Path, known: int, each: int) -> None:
    """Enrol so many utterances of so many speakers; everybody's last utterance is a probe."""
    folder.mkdir(parents=True)
    gallery = [f"{DASHED[4 * s + n]} {s}" for s in range(known) for n in range(each)]
    probe = [f"{DASHED[4 * s + 3]} {min(s, known)}" for s in range(8)]
    (folder / "gallery").write_text("\n".join(gallery) + "\n")
    (folder / "probe").write_text("\n".join(probe) + "\n")


STAR = "* fewer than 30 errors of a kind: too few to rely on the rate or its interval"

# Twelve speakers, enough to resample them.
MANY = [f"id2{row // 4:04}/abcdefghijk/{row % 4:05}.wav" for row in range(48)]
_RNG_OF_MANY = np.random.default_rng(21)


def lines_of_pairs(names: Sequence[str]) -> list[str]:
    pairs = itertools.combinations(range(len(names)), 2)
    return [f"{int(i // 4 == j // 4)} {names[i]} {names[j]}\n" for i, j in pairs]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trials, protocols, embeddings, and a cohort."""
    folder = tmp_path_factory.mktemp("score")
    (folder / "trials").write_text("".join(lines_of_pairs(NAMES)))
    write_parquet(folder, NAMES, VECTORS)
    write_npy(folder, NAMES, VECTORS)
    partial = [row for row in range(32) if row not in {0, 1, 2, 31}]
    (folder / "many").mkdir()
    (folder / "many" / "trials").write_text("".join(lines_of_pairs(MANY)))
    vectors = _RNG_OF_MANY.normal(size=(12, 16)).repeat(4, axis=0)
    write_parquet(folder / "many", MANY, vectors + 1.1 * _RNG_OF_MANY.normal(size=(48, 16)))
    (folder / "partial").mkdir()
    write_parquet(folder / "partial", [NAMES[row] for row in partial], VECTORS[partial])
    (folder / "cohort").mkdir()
    write_npy(folder / "cohort", [f"cohort{row}" for row in range(20)], COHORT)
    for size, known in (("Large_4", 4), ("Small_2", 2), ("Medium_3", 3)):
        for each in (3, 1, 2):
            write_protocol(folder / "ossi" / size / f"perspk{each}", known, each)
    return folder


def sv(folder: Path, *words: object) -> list[str]:
    given = ["--trials", folder / "trials", "--embeddings", folder / "embeddings.parquet"]
    return list(map(str, ["score", "sv", *given, *words]))


def ossi(folder: Path, *words: object, protocol: str = "Small_2/perspk2") -> list[str]:
    given = ["--protocol", folder / "ossi" / protocol, "--embeddings"]
    return list(map(str, ["score", "ossi", *given, folder / "embeddings.parquet", *words]))


# -- Running ---------------------------------------------------------------------------------------


def _refuse(word: str) -> NoReturn:
    raise AssertionError(f"{word} is not JSON")


Output = Callable[..., str]


@pytest.fixture
def output_of(capsys: pytest.CaptureFixture[str]) -> Output:
    """Run a command in this process and return what it prints."""

    def run(words: Sequence[str]) -> str:
        capsys.readouterr()
        assert main(words) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def record(output_of: Output) -> Callable[..., dict[str, Any]]:
    """Run a command with ``--json`` and return its object, read by the letter of the standard."""

    def run(words: Sequence[str]) -> dict[str, Any]:
        out = output_of([*words, "--json"])
        assert out.count("\n") == 1
        result = dict(json.loads(out, parse_constant=_refuse))
        result.pop("proof")  # see test_score_verify.py
        return result

    return run


Record = Callable[..., dict[str, Any]]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Output:
    """Run a command that must fail, for people and as JSON, and return what it says."""

    def run(words: Sequence[str]) -> str:
        capsys.readouterr()
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        message = err.split("voxblink2: ", 1)[1].rstrip("\n")
        assert "\n" not in message
        assert main([*words, "--json"]) == 2
        answer = json.loads(capsys.readouterr().out, parse_constant=_refuse)
        assert answer == {"error": "ScoringError", "message": message, "exit_code": 2}
        return message

    return run


# -- Verification ----------------------------------------------------------------------------------


def test_sv_prints_the_numbers_of_the_library(files: Path, record: Record) -> None:
    report = evaluate_trials(
        read_trials(files / "trials"),
        read_embeddings(files / "embeddings.parquet"),
        p_target=(0.01, 0.5),
    )
    result = record(sv(files, "--p-target", 0.01, 0.5))
    assert result == {
        "trials": 496,
        "scored": 496,
        "targets": 48,
        "missing": [],
        "normalization": None,
        "eer": report.eer.eer,
        "eer_threshold": report.eer.threshold,
        "eer_errors": {"misses": report.errors[0], "false_accepts": report.errors[1]},
        "eer_hull": report.hull_eer,
        "min_dcf": [
            {
                "p_target": prior,
                "min_dcf": cost.min_dcf,
                "threshold": cost.threshold,
                "errors": report.min_dcf_errors[prior]._asdict(),
            }
            for prior, cost in report.min_dcf.items()
        ],
        "min_cllr": report.min_cllr,
        "c_miss": 1.0,
        "c_fa": 1.0,
        **report.ratios.as_dict(),
        "intervals": None,
        "overlap": {"duplicate_trials": 0, "self_trials": 0, "pairs_with_both_labels": 0},
    }
    assert 0.05 < result["eer_hull"] < result["eer"] < 0.3


def test_sv_prints_coverage_first_and_every_rate(files: Path, output_of: Output) -> None:
    report = evaluate_trials(
        read_trials(files / "trials"),
        read_embeddings(files / "embeddings.parquet"),
        p_target=(0.01, 0.5),
    )
    lines = output_of(sv(files, "--p-target", 0.01, 0.5)).splitlines()
    assert lines[0] == "Trials    496 of 496 scored: 48 target, 448 non-target"
    costs = [cost.min_dcf for cost in report.min_dcf.values()]
    actual = [cost.act_dcf for cost in report.ratios.act_dcf.values()]
    for row, start in enumerate(
        [
            f"EER       {100 * report.eer.eer:.3f} %   threshold {report.eer.threshold:.4f}",
            f"EER hull  {100 * report.hull_eer:.3f} %",
            f"minDCF    {costs[0]:.4f}   p_target 0.01   threshold ",
            f"minDCF    {costs[1]:.4f}   p_target 0.5   threshold ",
            f"          {sum(costs) / 2:.4f}   mean",
            f"min Cllr  {report.min_cllr:.4f} bits",
            f"actDCF    {actual[0]:.4f}   p_target 0.01   threshold 4.5951",
            f"actDCF    {actual[1]:.4f}   p_target 0.5   threshold 0.0000",
            f"Cllr      {report.ratios.cllr:.4f} bits",
            "actDCF and Cllr take scores as log-likelihood ratios",
        ],
        start=1,
    ):
        assert lines[row].startswith(start)
    misses, accepts = report.errors
    assert f"   {misses:,} misses, {accepts:,} false acceptances" in lines[1]
    assert lines[11:] == [STAR]


def test_sv_needs_no_mean_of_one_prior(files: Path, output_of: Output) -> None:
    assert "mean" not in output_of(sv(files))
    assert "p_target 0.01" in output_of(sv(files))


def test_sv_without_all_embeddings_is_an_error(files: Path, refused: Output) -> None:
    message = refused(sv(files, "--embeddings", files / "partial" / "embeddings.parquet"))
    assert message.startswith("4 of 32 utterances have no embedding in ")
    assert "so 118 of 496 trials cannot be scored" in message
    assert "skip" in message


def test_sv_skips_and_counts_what_cannot_be_scored(
    files: Path, output_of: Output, record: Record
) -> None:
    words = sv(files, "--missing", "skip")
    words += ["--embeddings", str(files / "partial" / "embeddings.parquet")]
    report = evaluate_trials(
        read_trials(files / "trials"), read_embeddings(words[-1]), missing="skip"
    )
    lines = output_of(words).splitlines()
    assert lines[0] == "Trials    378 of 496 scored: 39 target, 339 non-target"
    assert lines[1].startswith("Missing   4 utterances have no embedding, such as id100")
    result = record(words)
    assert (result["trials"], result["scored"], result["targets"]) == (496, 378, 39)
    assert sorted(result["missing"]) == [NAMES[row] for row in (0, 1, 2, 31)]
    assert result["eer"] == report.eer.eer
    assert result["min_dcf"][0]["min_dcf"] == report.min_dcf[0.01].min_dcf


def test_sv_normalises_with_a_cohort(files: Path, output_of: Output, record: Record) -> None:
    words = sv(files, "--cohort", files / "cohort" / "embeddings.npy", "--top-n", 7)
    report = evaluate_trials(
        read_trials(files / "trials"),
        read_embeddings(files / "embeddings.parquet"),
        cohort=read_embeddings(files / "cohort" / "embeddings.npy"),
        top_n=7,
    )
    result = record(words)
    assert result["normalization"] == "AS-norm 1, 7 nearest of 20"
    assert result["eer"] == report.eer.eer
    assert result["eer_threshold"] == report.eer.threshold
    assert "Scores    AS-norm 1, 7 nearest of 20" in output_of(words).splitlines()


def test_a_cohort_smaller_than_the_usual_top_n_counts_whole(files: Path, record: Record) -> None:
    result = record(sv(files, "--cohort", files / "cohort" / "embeddings.npy"))
    assert result["normalization"] == "AS-norm 1, 20 nearest of 20"


def test_a_cohort_may_have_its_names_elsewhere(files: Path, tmp_path: Path, record: Record) -> None:
    words = write_npy_and_names(tmp_path, [f"cohort{row}" for row in range(20)], COHORT)
    words = [word.replace("--embeddings", "--cohort") for word in words]
    words = [word.replace("--names", "--cohort-names") for word in words]
    beside = ["--cohort", files / "cohort" / "embeddings.npy"]
    assert record(sv(files, *words, "--top-n", 5)) == record(sv(files, *beside, "--top-n", 5))


@pytest.mark.parametrize("over", ["trials", "speakers"])
def test_sv_prints_intervals(over: Any, files: Path, output_of: Output, record: Record) -> None:
    folder = files / "many" if over == "speakers" else files
    report = evaluate_trials(
        read_trials(folder / "trials"),
        read_embeddings(folder / "embeddings.parquet"),
        p_target=(0.1, 0.5),
        interval=over,
    )
    words = sv(folder, "--interval", over, "--p-target", 0.1, 0.5)
    intervals = report.intervals
    assert intervals is not None
    rate, cost = intervals.eer, intervals.min_dcf
    assert record(words)["intervals"] == {
        "over": over,
        "confidence": 0.95,
        "resamples": 1000,
        "eer": [rate.low, rate.high],
        "min_dcf": [cost.low, cost.high],
        "marks": {"eer": rate.mark, "min_dcf": cost.mark},
    }
    lines = output_of(words).splitlines()
    ends = f"[{100 * rate.low:.3f}, {100 * rate.high:.3f}]"
    assert lines[1].startswith(f"EER       {100 * report.eer.eer:.3f} % {ends}")
    assert f"minDCF    {cost.value:.4f} [{cost.low:.4f}, {cost.high:.4f}]" in lines[3]
    assert "[" not in lines[4]  # the second prior has none
    assert f"In brackets: 95 % intervals, 1,000 resamples of {over}" in lines
    assert lines[-1] == STAR


def test_sv_says_in_json_that_it_is_best_to_accept_nothing(
    files: Path, tmp_path: Path, output_of: Output, record: Record
) -> None:
    trials = tmp_path / "trials"
    # All labels the wrong way round: the highest scores are those of non-targets.
    lines = (files / "trials").read_text().splitlines()
    trials.write_text("".join(f"{1 - int(line[0])}{line[1:]}\n" for line in lines))
    words = sv(files, "--trials", trials, "--p-target", 0.001)
    (cost,) = record(words)["min_dcf"]
    errors = {"misses": 448, "false_accepts": 0}
    assert cost == {"p_target": 0.001, "min_dcf": 1.0, "threshold": None, "errors": errors}
    assert "threshold inf" in output_of(words)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_sv_draws_a_det_plot(suffix: str, files: Path, tmp_path: Path, record: Record) -> None:
    path = tmp_path / f"det.{suffix}"
    assert record(sv(files, "--plot", path)) == record(sv(files))
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begins)


@pytest.mark.parametrize("header", ["", "enrol,test,label\n"])
def test_trials_may_have_dashed_names_and_other_formats(
    header: str, files: Path, tmp_path: Path, record: Record
) -> None:
    trials = tmp_path / "trials.csv"
    words = {True: "target", False: "nontarget"}
    lines = [f"{DASHED[i]},{DASHED[j]},{words[i // 4 == j // 4]}\n" for i, j in PAIRS]
    trials.write_text(header + "".join(lines))
    assert record(sv(files, "--trials", trials)) == record(sv(files))


@pytest.mark.parametrize(
    "write",
    [
        write_parquet,
        write_npy,
        write_npy_and_names,
        functools.partial(write_kaldi, suffix=".scp"),
        functools.partial(write_kaldi, suffix=".ark"),
        write_pickle,
    ],
    ids=["parquet", "npy", "npy and names", "kaldi scp", "kaldi ark", "pickle"],
)
def test_all_formats_of_embeddings_give_the_same_numbers(
    write: Any, files: Path, tmp_path: Path, record: Record
) -> None:
    order = np.random.default_rng(1).permutation(32)
    words = write(tmp_path, [NAMES[row] for row in order], VECTORS[order])
    assert record([*sv(files), *words]) == record(sv(files))
    assert record([*ossi(files), *words]) == record(ossi(files))


# -- Open-set identification -----------------------------------------------------------------------


def test_ossi_prints_the_numbers_of_the_library(files: Path, record: Record) -> None:
    (protocol,) = read_protocols(files / "ossi" / "Large_4" / "perspk2")
    report = evaluate_protocol(protocol, read_embeddings(files / "embeddings.parquet"))
    result = report.result
    assert record(ossi(files, protocol="Large_4/perspk2")) == {
        "protocols": [
            {
                "protocol": "perspk2",
                **{"gallery": 8, "enrolled": 8, "speakers": 4},
                **{"probes": 8, "scored": 8, "known": 4, "unknown": 4},
                **{"missing": [], "lost_speakers": [], "lost_probes": 0},
                **{"method": "exact", "enrolment": "mean"},
                **{f"dir@far={far:g}": rate for far, rate in result.dir.items()},
                **{f"threshold@far={far:g}": at for far, at in result.thresholds.items()},
                **{"auc": result.auc, "rank1": result.rank1},
                "errors": {f"{far:g}": each._asdict() for far, each in result.errors.items()},
                "intervals": None,
                "overlap": report.overlap.as_dict(),
            }
        ]
    }
    assert set(report.overlap.counts.values()) == {0}
    assert 0 < result.auc < 1


@pytest.mark.parametrize(
    "options",
    [
        {"enrolment": "max"},
        {"enrolment": "normalized-mean"},
        {"method": "voxblink2"},
        {"far": [0.5, 0.25]},
    ],
    ids=str,
)
def test_ossi_hands_its_options_on(options: dict[str, Any], files: Path, record: Record) -> None:
    (protocol,) = read_protocols(files / "ossi" / "Large_4" / "perspk3")
    embeddings = read_embeddings(files / "embeddings.parquet")
    result = evaluate_protocol(protocol, embeddings, **options).result
    words = [
        word
        for name, value in options.items()
        for word in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]
    (scored,) = record(ossi(files, *words, protocol="Large_4/perspk3"))["protocols"]
    assert (scored["method"], scored["enrolment"]) == (result.method, result.enrolment)
    assert (scored["auc"], scored["rank1"]) == (result.auc, result.rank1)
    for far, rate in result.dir.items():
        assert scored[f"dir@far={far:g}"] == rate


def test_ossi_lets_everybody_pass_at_a_far_of_1_and_says_so_in_json(
    files: Path, record: Record
) -> None:
    (result,) = record(ossi(files, "--far", 0, 1))["protocols"]
    assert result["threshold@far=1"] is None
    assert result["dir@far=1"] == result["rank1"]
    assert isinstance(result["threshold@far=0"], float)


def test_ossi_prints_all_protocols_as_one_table(
    files: Path, output_of: Output, record: Record
) -> None:
    words = ossi(files, protocol="")
    protocols = read_protocols(files / "ossi")
    embeddings = read_embeddings(files / "embeddings.parquet")
    results = [evaluate_protocol(protocol, embeddings).result for protocol in protocols]
    head, *rows, last, mark = output_of(words).splitlines()
    assert head.split() == [
        *("protocol", "enrolled", "speakers", "probes", "known", "unknown"),
        *("DIR@FAR=0.1", "DIR@FAR=0.01", "DIR@FAR=0.001", "AUC", "rank-1"),
    ]
    assert last == "Method exact, enrolment mean"
    assert mark.startswith("* fewer than 30 known probes are lost or unknown ones accepted")
    assert len({len(line) for line in (head, *rows)}) == 1  # columns stand below their heads
    names = [f"{size}/perspk{n}" for size in ("Small_2", "Medium_3", "Large_4") for n in (1, 2, 3)]
    assert [row.split()[0] for row in rows] == names
    for row, protocol, result in zip(rows, protocols, results, strict=True):
        assert row.replace(" %", "").replace(" *", "").split()[1:] == [
            *(f"{len(protocol.gallery)}", f"{result.speakers}", "8"),
            *(f"{result.known}", f"{result.unknown}"),
            *(f"{100 * rate:.2f}" for rate in result.dir.values()),
            *(f"{result.auc:.4f}", f"{100 * result.rank1:.2f}"),
        ]
    records = record(words)["protocols"]
    assert [each["protocol"] for each in records] == names
    assert [each["auc"] for each in records] == [result.auc for result in results]


def test_ossi_prints_intervals(files: Path, output_of: Output, record: Record) -> None:
    words = ossi(files, "--interval", "probes", "--far", 0.5, protocol="Large_4/perspk2")
    (protocol,) = read_protocols(files / "ossi" / "Large_4" / "perspk2")
    embeddings = read_embeddings(files / "embeddings.parquet")
    result = evaluate_protocol(protocol, embeddings, far=(0.5,), interval="probes").result
    assert result.intervals is not None
    interval = result.intervals[0.5]
    (printed,) = record(words)["protocols"]
    assert printed["intervals"] == {
        "0.5": {"low": interval.low, "high": interval.high, "mark": interval.mark}
    }
    lines = output_of(words).splitlines()
    assert f" % [{100 * interval.low:.2f}, {100 * interval.high:.2f}] *" in lines[1]
    assert lines[3] == "In brackets: 95 % intervals, 1,000 resamples"
    assert lines[4].startswith("* fewer than 30 known probes are lost")
    assert len(lines) == 5


def test_ossi_has_intervals_of_exact_rates_of_enough_speakers(files: Path, refused: Output) -> None:
    message = refused(ossi(files, "--interval", "probes", "--method", "voxblink2"))
    assert message == "--interval goes with --method exact, the default."
    message = refused(ossi(files, "--interval", "speakers"))
    assert "at least 10 are needed to resample speakers" in message


def test_ossi_without_all_embeddings_is_an_error(files: Path, refused: Output) -> None:
    message = refused(ossi(files, "--embeddings", files / "partial" / "embeddings.parquet"))
    assert message.startswith("perspk2: 3 of 12 utterances have no embedding in ")
    assert f"Names without a match: '{DASHED[0]}' (nearest: 'id10000/" in message
    assert "skip" in message


def test_ossi_skips_and_counts_what_cannot_be_scored(
    files: Path, output_of: Output, record: Record
) -> None:
    # Nothing is left of what speaker 0 is enrolled with; its probe is there, the last one is not.
    words = ossi(files, "--missing", "skip", protocol="Small_2")
    words += ["--embeddings", str(files / "partial" / "embeddings.parquet")]
    head, *lines = output_of(words).splitlines()
    assert head.split()[:4] == ["protocol", "enrolled", "speakers", "probes"]
    coverage = [" ".join(line.split()[:10]) for line in lines[:3]]
    assert coverage == [
        "perspk1 1 of 2 1 6 of 8 1 5",
        "perspk2 2 of 4 1 6 of 8 1 5",
        "perspk3 3 of 6 1 6 of 8 1 5",
    ]
    assert lines[3].startswith("Missing   4 utterances have no embedding, such as ")
    assert lines[4] == (
        "perspk1: speakers without any enrolled utterance: 1; their 1 probe is left out"
    )
    first, _, last = record(words)["protocols"]
    assert (first["gallery"], first["enrolled"], first["probes"], first["scored"]) == (2, 1, 8, 6)
    assert first["missing"] == [DASHED[0], DASHED[31]]
    assert first["lost_speakers"] == last["lost_speakers"] == ["0"]
    assert (first["known"], first["unknown"]) == (1, 5)


@pytest.mark.parametrize("protocol", ["", "Small_2/perspk1"])
def test_ossi_draws_dir_over_far(
    protocol: str, files: Path, tmp_path: Path, record: Record
) -> None:
    path = tmp_path / "dir.svg"
    plain = record(ossi(files, protocol=protocol))
    assert record(ossi(files, "--plot", path, protocol=protocol)) == plain
    text = path.read_text(encoding="utf-8")
    for entry in plain["protocols"]:
        assert f"<!-- {entry['protocol']} -->" in text


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--trials {tmp}/none", "{tmp}/none cannot be read: No such file or directory"),
        ("--trials {tmp}", "{tmp} cannot be read: Is a directory"),
        ("--trials {tmp}/words", "words, line 2: 'x y' has 2 words, but line 1 has 3"),
        ("--trials {tmp}/label", "label, line 2: the label is 'maybe'. Allowed are"),
        ("--trials {tmp}/empty", "{tmp}/empty is empty. Allowed are '1 enrol test'"),
        ("--trials {tmp}/strangers", "Names without a match: 'x' (nearest: 'id10"),
        ("--trials {tmp}/targets", "labels are all 1; error rates need target (1) and non-target"),
        ("--embeddings {tmp}/none.npy", "{tmp}/none.npy: this file does not exist or is empty"),
        ("--embeddings {tmp}/e.csv", "extension '.csv' is not read. Allowed are .parquet, .npy"),
        ("--embeddings {tmp}/nan.pkl", "row 5 ('id10001/abcdefghij1/00001.wav') has a number that"),
        ("--embeddings {tmp}/zero.pkl", "embeddings: row 7 has the length 0"),
        ("--embeddings {tmp}/evil.pkl", "it names builtins.print, which arrays do not need"),
        ("--names {tmp}/words", "goes with .npy and .safetensors only"),
        ("--p-target 0", "p_target must lie between 0 and 1, got 0"),
        ("--p-target 0.01 1.5", "p_target must lie between 0 and 1, got 1.5"),
        ("--p-target nan", "p_target must lie between 0 and 1, got nan"),
        ("--cohort {tmp}/none.scp", "{tmp}/none.scp: this file does not exist or is empty"),
        ("--cohort {cohort} --top-n 1", "--top-n must be at least 2, got 1"),
        ("--cohort-names {cohort}", "--cohort-names goes with --cohort, which is missing"),
        ("--interval speakers --trials {tmp}/plain --embeddings {tmp}/plain.pkl",
         "'a' does not contain its speaker; names such as id10270/x6uYqmx31kE/00001.wav or"),
        ("--plot {tmp}/det.xyz", "det.xyz cannot be written as a plot: "),
        ("--plot {tmp}/none/det.png", "{tmp}/none/det.png cannot be written as a plot"),
        ("--plot {tmp}/det", "{tmp}/det cannot be written as a plot"),
    ],
)  # fmt: skip
def test_sv_refuses_bad_input_in_one_plain_line(
    changed: str, message: str, files: Path, tmp_path: Path, refused: Output
) -> None:
    bad_input(tmp_path)
    places = {"tmp": tmp_path, "cohort": files / "cohort" / "embeddings.npy"}
    result = refused([*sv(files), *changed.format(**places).split()])
    assert message.format(**places) in result


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def bad_input(folder: Path) -> None:
    a, b = NAMES[:2]
    for name, text in {
        "words": f"1 {a} {b}\nx y\n",
        "label": f"{a} {b} target\n{a} {b} maybe\n",
        "empty": "",
        "strangers": "1 x y\n0 x z\n",
        "targets": f"1 {a} {b}\n",
        "plain": "1 a b\n0 a c\n",
    }.items():
        (folder / name).write_text(text)
    vectors = {name: vector.copy() for name, vector in zip(NAMES, VECTORS, strict=True)}
    evil: dict[str, Any] = {"x": _Evil()}
    kept = {"nan.pkl": {**vectors}, "zero.pkl": {**vectors}, "evil.pkl": evil}
    kept["nan.pkl"][NAMES[5]] = vectors[NAMES[5]] * np.nan
    kept["zero.pkl"][NAMES[7]] = vectors[NAMES[7]] * 0
    kept["plain.pkl"] = dict(zip("abc", VECTORS, strict=False))
    for name, content in kept.items():
        (folder / name).write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--protocol {tmp}", "{tmp} contains no open-set protocol: a folder with the files"),
        (
            "--protocol {tmp}/none",
            "{tmp}/none is not a folder. The release has its protocols in data/ossi",
        ),
        ("--protocol {tmp}/bad", "probe, line 2: 'x' has 1 word, but line 1 has 2"),
        ("--embeddings {tmp}/nan.pkl", "has a number that is not finite"),
        ("--far 1.5", "far must lie between 0 and 1, got 1.5"),
        ("--far nan", "far must lie between 0 and 1, got nan"),
        ("--device abacus", "device is 'abacus', and PyTorch cannot use it"),
        ("--plot {tmp}/dir.xyz", "dir.xyz cannot be written as a plot: "),
        ("--plot {tmp}/none/dir.png", "{tmp}/none/dir.png cannot be written as a plot"),
    ],
)
def test_ossi_refuses_bad_input_in_one_plain_line(
    changed: str, message: str, files: Path, tmp_path: Path, refused: Output
) -> None:
    bad_input(tmp_path)
    if "bad" in changed:
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "gallery").write_text(f"{DASHED[0]} 0\n")
        (tmp_path / "bad" / "probe").write_text(f"{DASHED[1]} 0\nx\n")
    result = refused([*ossi(files), *changed.format(tmp=tmp_path).split()])
    assert message.format(tmp=tmp_path) in result


@pytest.mark.parametrize("command", [sv, ossi])
def test_a_plot_that_cannot_be_drawn_is_found_before_anything_is_scored(
    command: Callable[..., list[str]], files: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(command(files, "--plot", tmp_path / "none" / "plot.png")) == 2
    assert "Scoring" not in capsys.readouterr().err


# -- Processes of their own ------------------------------------------------------------------------


def test_the_program_scores_trials(files: Path, record: Record) -> None:
    done = cli_process.run(*sv(files, "--json"))
    result = json.loads(done.stdout)
    assert result.pop("proof")["command"] == "score sv"
    assert result == record(sv(files))
    assert done.stderr.splitlines() == [
        f"Reading {files / 'trials'}",
        f"Reading {files / 'embeddings.parquet'}",
        "Scoring 496 trials",
    ]


def test_the_program_scores_protocols(files: Path, output_of: Output) -> None:
    done = cli_process.run(*ossi(files, protocol=""))
    assert done.stdout == output_of(ossi(files, protocol=""))
    assert done.stderr.splitlines()[:2] == [
        f"Reading {files / 'embeddings.parquet'}",
        "Scoring Small_2/perspk1: 8 probes, 2 enrolled utterances",
    ]


def test_the_program_ends_with_2_and_one_plain_line(files: Path) -> None:
    done = cli_process.run(*sv(files, "--trials", "nowhere"), code=2)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "Reading nowhere",
        "voxblink2: nowhere cannot be read: No such file or directory.",
    ]


LOADED = """
import json, sys
from voxblink2_lib.cli import main

heavy = {"torch", "datasets", "evaluate", "transformers", "matplotlib", "yt_dlp", "av"}
for words in json.load(sys.stdin):
    assert main(words) == 0
    print("heavy:", *sorted(heavy & sys.modules.keys()))
"""


def test_scoring_loads_nothing_heavy_and_a_plot_only_what_draws_it(
    files: Path, tmp_path: Path
) -> None:
    cohort = ["--cohort", files / "cohort" / "embeddings.npy", "--top-n", 5]
    commands = [
        sv(files / "many", "--interval", "speakers", *cohort),
        ossi(files, protocol=""),
        sv(files, "--plot", tmp_path / "det.png"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        input=json.dumps(commands),
        check=True,
        capture_output=True,
        text=True,
        env=cli_process.environment(),
    )
    loaded = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("heavy:")]
    assert loaded == [[], [], ["matplotlib"]]
