"""The metrics of ``evaluate``: the library's numbers, however ``evaluate`` passes the values."""

from __future__ import annotations

import doctest
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import numpy.typing as npt
import pytest
import torch

from voxblink2_lib import metrics_path
from voxblink2_lib.errors import ScoringError
from voxblink2_lib.published_results import PUBLISHED
from voxblink2_lib.scoring import eer, min_dcf, open_set_identification

ROOT = Path(__file__).resolve().parents[2]
METRICS = ["eer", "min_dcf", "ossi"]
DEADLINE_SECONDS = 120.0

Array = npt.NDArray[Any]


# Trials whose scores overlap and tie, and a protocol that is neither perfect nor hopeless.
_RNG = np.random.default_rng(20)
LABELS = (_RNG.random(300) < 0.2).astype(int)
SCORES = np.round(_RNG.normal(1.5 * LABELS, 1), 2)
SPEAKERS = [str(number) for number in range(8, 14)]  # "8" to "13": as texts they sort otherwise
_CENTRES = _RNG.normal(size=(9, 6))
GALLERY_LABELS = [speaker for speaker in SPEAKERS for _ in range(3)]
GALLERY = np.repeat(_CENTRES[:6], 3, axis=0) + 0.8 * _RNG.normal(size=(18, 6))
PROBE_LABELS = [str(8 + number) for number in _RNG.integers(9, size=120)]
PROBES = _CENTRES[[int(label) - 8 for label in PROBE_LABELS]] + 0.8 * _RNG.normal(size=(120, 6))
GALLERY, PROBES = GALLERY.astype(np.float32), PROBES.astype(np.float32)
ENROLLED = {"gallery": GALLERY, "gallery_labels": GALLERY_LABELS}


@pytest.fixture(autouse=True, scope="module")
def _caches_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep copies of the metrics' scripts, and what ``add`` writes, out of the user's caches."""
    caches = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", caches / "modules")
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", caches / "metrics")
        patch.setattr(sys, "path", [*sys.path])  # evaluate appends the folder of scripts
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


def load(name: str, **options: Any) -> Any:
    return evaluate.load(metrics_path(name), **options)


@pytest.fixture
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def ossi(probe_labels: Any = PROBE_LABELS, **options: Any) -> dict[str, float]:
    """What the library says of the protocol, under the metric's keys."""
    labels = options.pop("gallery_labels", GALLERY_LABELS)
    result = open_set_identification(GALLERY, labels, PROBES, probe_labels, **options)
    rates = {f"dir@far={far:g}": rate for far, rate in result.dir.items()}
    return {**rates, "auc": result.auc, "rank1": result.rank1}


def of_library(name: str) -> dict[str, Any]:
    match name:
        case "eer":
            return eer(SCORES, LABELS)._asdict()
        case "min_dcf":
            return min_dcf(SCORES, LABELS)._asdict()
    return ossi()


def inputs(name: str) -> dict[str, Any]:
    if name == "ossi":
        return {"predictions": PROBES, "references": PROBE_LABELS}
    return {"predictions": SCORES, "references": LABELS}


def options(name: str) -> dict[str, Any]:
    return ENROLLED if name == "ossi" else {}


# -- Where they lie --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("at_the_root")
def test_a_checkout_loads_them_by_their_folder(name: str) -> None:
    metric = evaluate.load(f"metrics/{name}")
    assert metric.name == name
    assert metric.compute(**inputs(name), **options(name)) == of_library(name)


@pytest.mark.parametrize("name", METRICS)
def test_the_package_tells_their_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(metrics_path(name)) == ROOT / "metrics" / name
    assert load(name).name == name


@pytest.mark.parametrize("name", ["", "accuracy", "eer/", "../metrics/eer"])
def test_the_package_knows_no_other_metric(name: str) -> None:
    with pytest.raises(ValueError, match=r"no metric '.*'; allowed are eer, min_dcf, ossi"):
        metrics_path(name)


INSTALLED = """
import json, sys
import evaluate
import voxblink2_lib

found = {"package": voxblink2_lib.__file__}
for name in sys.argv[1:]:
    path = voxblink2_lib.metrics_path(name)
    metric = evaluate.load(path)
    if name == "ossi":
        given = dict(predictions=[[2, 1], [1, 3], [-1, 1]], references=["a", "b", "c"],
                     gallery=[[1, 0], [0, 1]], gallery_labels=["a", "b"])
    else:
        given = dict(predictions=[0.1, 0.4, 0.35, 0.8], references=[0, 0, 1, 1])
    found[name] = [path, metric.compute(**given)]
print(json.dumps(found))
"""


def wheel(folder: Path) -> Path:
    """Build the wheel of this tree, out of a copy: building writes beside the sources."""
    source = folder / "source"
    leave = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("voxblink2_lib", "metrics", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=leave)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "voxblink2.py"):
        shutil.copy(ROOT / name, source)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check"]
    try:
        here = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        here = False
    # With isolation pip would fetch setuptools, which is here already as a rule.
    words += ["--no-build-isolation"] if here else []
    subprocess.run([*words, "-w", folder, source], check=True, timeout=DEADLINE_SECONDS)
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_has_them_inside_the_package(tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel(tmp_path)) as built:
        built.extractall(site)
    env = {**os.environ, "PYTHONPATH": str(site), "HF_HOME": str(tmp_path / "home")}
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", INSTALLED, *METRICS],
        check=True,
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env=env,
        timeout=DEADLINE_SECONDS,
    ).stdout
    result = json.loads(output)
    package = site / "voxblink2_lib"
    assert Path(result["package"]) == package / "__init__.py"
    rates = {"dir@far=0.1": 1.0, "dir@far=0.01": 1.0, "dir@far=0.001": 1.0}
    assert {name: result[name] for name in METRICS} == {
        "eer": [str(package / "metrics" / "eer"), {"eer": 0.5, "threshold": 0.4}],
        "min_dcf": [
            str(package / "metrics" / "min_dcf"),
            {"min_dcf": 0.5, "threshold": 0.8},
        ],
        "ossi": [str(package / "metrics" / "ossi"), {**rates, "auc": 1.0, "rank1": 1.0}],
    }
    assert all((package / "metrics" / name / "README.md").is_file() for name in METRICS)


# -- Cards and examples ----------------------------------------------------------------------------


def run_examples(text: str, name: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    runner, report = doctest.DocTestRunner(verbose=False), list[str]()
    runner.run(test, out=report.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("at_the_root")
def test_examples_of_the_card_are_true(name: str) -> None:
    card = (ROOT / "metrics" / name / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert blocks
    assert all(block.startswith(">>> ") for block in blocks)
    run_examples("\n".join(blocks), f"{name}/README.md")


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("at_the_root")
def test_examples_of_the_metric_are_true(name: str) -> None:
    run_examples(load(name).inputs_description, name)


@pytest.mark.parametrize("name", METRICS)
def test_the_card_says_what_a_card_must(name: str) -> None:
    card = (ROOT / "metrics" / name / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    assert re.search(r"^title: \S", front, re.MULTILINE)
    headings = re.findall(r"^##? (.+)$", text, re.MULTILINE)
    assert headings[1:] == ["Definition", "Use", "Values", "Limits", "Citation"]
    # Every key of the results is among the values.
    keys = {"dir@far=..." if key.startswith("dir") else key for key in of_library(name)}
    assert all(f"| `{key}` |" in text for key in keys)


@pytest.mark.parametrize("name", METRICS)
def test_the_metric_says_what_it_is(name: str) -> None:
    metric = load(name)
    assert metric.module_type == "metric"
    assert metric.description.strip()
    assert metric.citation.strip().startswith("@")
    for part in ("Args:", "Returns:", "Raises:", "Example:"):
        assert part in metric.inputs_description
        assert part in metric.compute.__doc__


# -- The library's numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("eer", ["eer", "threshold"]),
        ("min_dcf", ["min_dcf", "threshold"]),
        ("ossi", ["dir@far=0.1", "dir@far=0.01", "dir@far=0.001", "auc", "rank1"]),
    ],
)
def test_results_have_the_documented_keys_and_plain_numbers(name: str, keys: list[str]) -> None:
    result = load(name).compute(**inputs(name), **options(name))
    assert list(result) == keys
    assert {type(value) for value in result.values()} == {float}
    assert all(0 < value < 1 for key, value in result.items() if key != "threshold")


def test_eer_is_that_of_the_library() -> None:
    metric = load("eer")
    assert metric.compute(predictions=SCORES, references=LABELS) == eer(SCORES, LABELS)._asdict()
    hull = metric.compute(predictions=SCORES, references=LABELS, method="hull")
    assert hull["eer"] == eer(SCORES, LABELS, method="hull").eer
    assert hull["threshold"] is None
    assert json.loads(json.dumps(hull, allow_nan=False)) == hull


@pytest.mark.parametrize(
    "costs",
    [
        {},
        {"p_target": 0.3},
        {"p_target": 0.001},
        {"c_miss": 10, "c_fa": 2.5},
        {"p_target": [0.01, 0.001]},
        {"p_target": (0.5,), "c_miss": 2},
        {"p_target": np.array([0.25, 0.5])},
    ],
    ids=str,
)
def test_min_dcf_is_that_of_the_library(costs: dict[str, Any]) -> None:
    result = load("min_dcf").compute(predictions=SCORES, references=LABELS, **costs)
    expected = min_dcf(SCORES, LABELS, **costs)
    assert result["min_dcf"] == expected.min_dcf
    several = isinstance(expected.threshold, tuple)
    assert result["threshold"] == (list(expected.threshold) if several else expected.threshold)  # type: ignore[arg-type]


def test_min_dcf_takes_its_costs_when_it_is_loaded_and_others_when_it_computes() -> None:
    metric = load("min_dcf", p_target=0.3, c_miss=2, c_fa=5)
    result = metric.compute(predictions=SCORES, references=LABELS)
    assert result == min_dcf(SCORES, LABELS, p_target=0.3, c_miss=2, c_fa=5)._asdict()
    result = metric.compute(predictions=SCORES, references=LABELS, p_target=0.1, c_fa=1)
    assert result == min_dcf(SCORES, LABELS, p_target=0.1, c_miss=2)._asdict()
    assert metric.compute(predictions=SCORES, references=LABELS)["min_dcf"] != result["min_dcf"]


def test_min_dcf_says_that_it_is_best_to_accept_nothing() -> None:
    result = load("min_dcf").compute(predictions=[1, 2, 3, 4], references=[1, 1, 0, 0])
    assert result == {"min_dcf": 1.0, "threshold": np.inf}


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"far": [0.2]},
        {"far": (0, 0.5, 1)},
        {"far": np.array([0.1, 0.05])},
        {"method": "voxblink2"},
        {"enrolment": "max"},
        {"enrolment": "normalized-mean", "memory_bytes": 1 << 20},
        {"device": "cpu"},
    ],
    ids=str,
)
def test_ossi_is_that_of_the_library(choice: dict[str, Any]) -> None:
    result = load("ossi").compute(predictions=PROBES, references=PROBE_LABELS, **ENROLLED, **choice)
    assert result == ossi(**choice)


def as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values.tolist())


@pytest.mark.parametrize("made", [list, as_tuple, np.float32, np.float64, torch.as_tensor])
@pytest.mark.parametrize("labels", [list, np.bool_, np.int8, np.float32, torch.as_tensor])
def test_scores_may_be_lists_arrays_and_tensors(made: Any, labels: Any) -> None:
    whole = np.rint(100 * SCORES)  # the same numbers in float32
    expected = eer(whole, LABELS)._asdict()
    result = load("eer").compute(predictions=made(whole), references=labels(LABELS))
    assert result == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("made", [np.ndarray.tolist, np.float64, torch.as_tensor])
def test_embeddings_may_be_lists_arrays_and_tensors(made: Any) -> None:
    result = load("ossi").compute(
        predictions=made(PROBES),
        references=tuple(PROBE_LABELS),
        gallery=made(GALLERY),
        gallery_labels=np.array(GALLERY_LABELS),
    )
    assert result == ossi()


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_rows_makes_no_difference(name: str) -> None:
    order = np.random.default_rng(1).permutation(len(inputs(name)["references"]))
    given = {key: np.array(rows)[order] for key, rows in inputs(name).items()}
    enrolled = {key: np.array(rows)[::-1] for key, rows in options(name).items()}
    assert load(name).compute(**given, **enrolled) == of_library(name)


# -- Ways through evaluate -------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_arrays_go_straight_to_the_computation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = load(name)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("went through Arrow")

    for way in ("add_batch", "add", "_init_writer", "_finalize"):
        monkeypatch.setattr(metric, way, refuse)
    assert metric.compute(**inputs(name), **options(name)) == of_library(name)


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_rows_can_be_added_in_batches(name: str, in_memory: bool, tmp_path: Path) -> None:
    metric = load(name, keep_in_memory=in_memory, cache_dir=str(tmp_path))
    predictions, references = inputs(name).values()
    for start in range(0, len(references), 50):
        rows = slice(start, start + 50)
        metric.add_batch(predictions=predictions[rows], references=references[rows])
    assert metric.compute(**options(name)) == of_library(name)
    # What was added is used once, and nothing of it stays behind.
    assert not list(tmp_path.rglob("*.arrow"))
    assert metric.compute(**inputs(name), **options(name)) == of_library(name)


@pytest.mark.parametrize("name", METRICS)
def test_rows_can_be_added_one_by_one(name: str) -> None:
    metric = load(name)
    for prediction, reference in zip(*inputs(name).values(), strict=True):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute(**options(name)) == of_library(name)


@pytest.mark.parametrize("name", METRICS)
def test_rows_of_compute_join_those_that_were_added(name: str) -> None:
    metric = load(name)
    predictions, references = inputs(name).values()
    metric.add_batch(predictions=predictions[:70], references=references[:70])
    rest = {"predictions": predictions[70:], "references": references[70:]}
    assert metric.compute(**rest, **options(name)) == of_library(name)


def test_scores_that_are_added_keep_all_their_digits() -> None:
    # In float32 all of them would be equal and the EER one half.
    scores = 0.5 + 1e-12 * np.arange(10)
    labels = [0] * 5 + [1] * 5
    metric = load("eer")
    for rows in (slice(0, 7), slice(7, 10)):
        metric.add_batch(predictions=scores[rows], references=labels[rows])
    assert metric.compute() == {"eer": 0.0, "threshold": scores[5]}


@pytest.mark.parametrize("kind", [np.float32, torch.tensor])
def test_scores_in_single_precision_are_added_as_they_are(kind: Callable[[Any], Any]) -> None:
    scores = kind(SCORES.astype(np.float32))
    metric = load("eer")
    metric.add_batch(predictions=scores, references=torch.tensor(LABELS) == 1)
    assert metric.compute() == load("eer").compute(predictions=scores, references=LABELS)


@pytest.mark.parametrize("name", ["eer", "ossi"])
def test_a_computation_that_failed_does_not_stand_in_the_way(name: str, tmp_path: Path) -> None:
    metric = load(name, cache_dir=str(tmp_path))
    predictions, references = inputs(name).values()
    one_class = [row for row in range(len(references)) if references[row] == references[0]]
    alone = {
        "predictions": np.asarray(predictions)[one_class],
        "references": np.asarray(references)[one_class],
    }
    with pytest.raises(ScoringError, match=r"labels are all|are in the gallery"):
        metric.compute(**alone, **options(name))
    assert metric.compute(**inputs(name), **options(name)) == of_library(name)
    metric.add_batch(**alone)
    with pytest.raises(ScoringError, match=r"labels are all|are in the gallery"):
        metric.compute(**options(name))
    assert metric.compute(**inputs(name), **options(name)) == of_library(name)
    metric.add_batch(**inputs(name))
    assert metric.compute(**options(name)) == of_library(name)


def test_a_batch_that_was_refused_adds_nothing() -> None:
    metric = load("eer")
    metric.add_batch(predictions=SCORES, references=LABELS)
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(2\)"):
        metric.add_batch(predictions=[9.0, 9.0], references=[0])
    assert metric.compute() == of_library("eer")


def share(rank: int, cache_dir: str) -> dict[str, Any]:
    """What one of two processes does, with every other row: each metric is fed in another way."""

    def load_one(name: str) -> Any:
        two = {"num_process": 2, "process_id": rank, "experiment_id": "of-two"}
        return load(name, **two, cache_dir=cache_dir, timeout=DEADLINE_SECONDS)

    result: dict[str, Any] = {}
    scores, labels = SCORES[rank::2], LABELS[rank::2]
    metric = load_one("eer")
    for start in range(0, len(scores), 40):
        rows = slice(start, start + 40)
        metric.add_batch(predictions=scores[rows], references=labels[rows])
    result["eer"] = metric.compute()
    # Arrays that are given to compute must be gathered as well.
    result["min_dcf"] = load_one("min_dcf").compute(predictions=scores, references=labels)
    metric = load_one("ossi")
    for prediction, reference in zip(PROBES[rank::2], PROBE_LABELS[rank::2], strict=True):
        metric.add(prediction=prediction, reference=reference)
    result["ossi"] = metric.compute(**ENROLLED)
    return result


SECOND = """
import json, runpy, sys
print(json.dumps(runpy.run_path(sys.argv[2])["share"](1, sys.argv[1])))
"""


def test_two_processes_give_the_result_of_the_whole(tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    # The same modules as here, this one among them.
    paths = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SECOND, shared, __file__],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "HF_HOME": str(tmp_path / "home")},
    ) as process:
        first = share(0, shared)
        second = json.loads(process.communicate(timeout=DEADLINE_SECONDS)[0])
    assert process.returncode == 0
    assert first == {name: of_library(name) for name in METRICS}
    assert second == dict.fromkeys(METRICS)  # only the first process has results
    assert not list(Path(shared).rglob("*.arrow"))


def test_the_two_metrics_of_verification_combine() -> None:
    both = evaluate.combine([load("eer"), load("min_dcf", p_target=0.2)])
    rate, cost = eer(SCORES, LABELS), min_dcf(SCORES, LABELS, p_target=0.2)
    expected = {
        **{"eer": rate.eer, "eer_threshold": rate.threshold},
        **{"min_dcf": cost.min_dcf, "min_dcf_threshold": cost.threshold},
    }
    assert both.compute(predictions=SCORES, references=LABELS) == expected
    both.add_batch(predictions=SCORES[:99], references=LABELS[:99])
    for score, label in zip(SCORES[99:], LABELS[99:], strict=True):
        both.add(score, label)
    assert both.compute() == expected


@pytest.mark.usefixtures("at_the_root")
def test_metrics_combine_by_name_and_with_prefixes() -> None:
    both = evaluate.combine(["metrics/eer", "metrics/min_dcf"])
    result = both.compute(predictions=SCORES, references=LABELS)
    assert list(result) == ["eer", "eer_threshold", "min_dcf", "min_dcf_threshold"]
    points = {"sre08": load("min_dcf", p_target=0.01), "sre10": load("min_dcf", p_target=0.001)}
    result = evaluate.combine(points, force_prefix=True).compute(
        predictions=SCORES, references=LABELS
    )
    assert result["sre08_min_dcf"] == min_dcf(SCORES, LABELS).min_dcf
    assert result["sre10_min_dcf"] == min_dcf(SCORES, LABELS, p_target=0.001).min_dcf


# -- Labels of speakers ----------------------------------------------------------------------------


NUMBERS = [int(label) for label in PROBE_LABELS]
GALLERY_NUMBERS = [int(label) for label in GALLERY_LABELS]


@pytest.mark.parametrize("added", [False, True], ids=["direct", "added"])
@pytest.mark.parametrize(
    ("labels", "gallery_labels"),
    [
        ([f"id{label}" for label in PROBE_LABELS], [f"id{label}" for label in GALLERY_LABELS]),
        (NUMBERS, GALLERY_NUMBERS),
        (np.array(NUMBERS, np.int32), np.array(GALLERY_NUMBERS)),
        (torch.tensor(NUMBERS), torch.tensor(GALLERY_NUMBERS)),
        (PROBE_LABELS, GALLERY_LABELS),  # "12" is a name
        (np.array(PROBE_LABELS), np.array(GALLERY_LABELS)),
        # As numbers "08" would be "8".
        ([f"0{label}" for label in PROBE_LABELS], [f"0{label}" for label in GALLERY_LABELS]),
    ],
    ids=["texts", "numbers", "array", "tensor", "digits", "array of digits", "leading zeros"],
)
def test_speakers_are_texts_or_numbers_and_stay_so(
    labels: Any, gallery_labels: Any, added: bool
) -> None:
    metric, given = load("ossi"), {"predictions": PROBES, "references": labels}
    enrolled = {"gallery": GALLERY, "gallery_labels": gallery_labels}
    if added:
        for rows in (slice(0, 50), slice(50, None)):
            metric.add_batch(**{key: values[rows] for key, values in given.items()})
        given = {}
    assert metric.compute(**given, **enrolled) == ossi()


@pytest.mark.parametrize("added", [False, True], ids=["direct", "added"])
def test_speakers_08_and_8_are_two(added: bool) -> None:
    labels = [f"0{label}" if label == "8" else label for label in PROBE_LABELS]
    metric, given = load("ossi"), {"predictions": PROBES, "references": labels}
    if added:
        metric.add_batch(**given)
        given = {}
    result = metric.compute(**given, **ENROLLED)
    assert result == ossi(labels)
    assert result != ossi()


@pytest.mark.parametrize("added", [False, True], ids=["direct", "added"])
def test_numbers_do_not_meet_texts(added: bool, tmp_path: Path) -> None:
    metric = load("ossi", cache_dir=str(tmp_path))
    given = {"predictions": PROBES, "references": NUMBERS}
    if added:
        metric.add_batch(**given)
        given = {}
    with pytest.raises(ScoringError, match="both must be integers or both strings"):
        metric.compute(**given, **ENROLLED)


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("added", [False, True], ids=["direct", "added"])
@pytest.mark.parametrize("name", ["eer", "min_dcf"])
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([1.0, 2.0], [1, 1], "labels are all 1; error rates need target"),
        ([1.0, 2.0], [0, 0], "labels are all 0; error rates need target"),
        ([1.0, np.nan, 2.0], [0, 1, 1], "scores must be finite, got nan in row 1"),
        ([1.0, 2.0, np.inf], [0, 1, 1], "scores must be finite, got inf in row 2"),
        ([1.0, 2.0, 3.0], [0, 2, 1], r"labels must be 0 .* or 1 .*, got 2.* in row 1"),
        ([1.0, 2.0, 3.0], [0, 1, 0.5], r"labels must be 0 .* or 1 .*, got 0.5 in row 2"),
    ],
)
def test_bad_trials_are_refused_by_row(
    *,
    name: str,
    predictions: list[float],
    references: list[Any],
    message: str,
    added: bool,
    tmp_path: Path,
) -> None:
    # A folder of its own: evaluate holds the lock of a computation that failed for a while.
    metric = load(name, cache_dir=str(tmp_path))
    given = {"predictions": predictions, "references": references}
    if added:
        metric.add_batch(**given)
        given = {}
    with pytest.raises(ValueError, match=message) as refused:
        metric.compute(**given)
    assert isinstance(refused.value, ScoringError)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("eer", {"predictions": [1.0]}, "scores has 1 values and labels 300; both must agree"),
        ("eer", {"predictions": SCORES[:, None]}, "scores must have one dimension"),
        ("eer", {"method": "middle"}, "method is 'middle'; allowed are 'interpolated'"),
        ("min_dcf", {"p_target": 1}, "p_target must lie between 0 and 1, got 1"),
        ("min_dcf", {"p_target": []}, "p_target is empty"),
        ("min_dcf", {"c_fa": 0}, "c_fa must be a positive number, got 0"),
        ("ossi", {"references": PROBE_LABELS[:-1]}, "probes has 120 rows and probe_labels 119"),
        ("ossi", {"predictions": PROBES[:, :5]}, "probes has 5 dimensions where 6 are needed"),
        ("ossi", {"predictions": 0 * PROBES}, "probes: row 0 has the length 0"),
        ("ossi", {"predictions": np.inf * PROBES}, r"probes must be finite, got -?inf in row 0"),
        ("ossi", {"references": ["nobody"] * 120}, "none of them is in the gallery"),
        ("ossi", {"references": ["8"] * 120}, "all of them are in the gallery"),
        ("ossi", {"references": [8.0] * 120}, "probe_labels must be integers or strings"),
        ("ossi", {"gallery": []}, "gallery is empty"),
        ("ossi", {"gallery": None}, "gallery and gallery_labels are missing"),
        ("ossi", {"gallery_labels": None}, "gallery and gallery_labels are missing"),
        ("ossi", {"gallery_labels": SPEAKERS}, "gallery has 18 rows and gallery_labels 6"),
        ("ossi", {"far": [2]}, "far must lie between 0 and 1, got 2"),
        ("ossi", {"far": []}, "far is empty"),
        ("ossi", {"method": "grid"}, "method is 'grid'; allowed are 'exact'"),
        ("ossi", {"enrolment": "median"}, "enrolment is 'median'; allowed are 'mean'"),
    ],
    ids=str,
)
def test_bad_input_is_a_value_error_that_names_the_argument(
    name: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        load(name).compute(**{**inputs(name), **options(name), **changed})
    assert isinstance(refused.value, ScoringError)


@pytest.mark.parametrize("name", METRICS)
def test_an_argument_that_the_metric_does_not_have_is_named(name: str) -> None:
    for given in (inputs(name), {}):
        with pytest.raises(ScoringError, match=r"no argument preds; it has predictions, ref"):
            load(name).compute(**given, preds=[1.0])


def test_an_option_of_one_of_several_metrics_is_given_when_it_is_loaded() -> None:
    both = evaluate.combine([load("eer"), load("min_dcf")])
    with pytest.raises(ScoringError, match=r"no argument p_target.*evaluate\.load\(\"metrics/min"):
        both.compute(predictions=SCORES, references=LABELS, p_target=0.05)


@pytest.mark.parametrize("name", METRICS)
def test_one_of_the_two_inputs_alone_is_a_value_error(name: str) -> None:
    for alone in ("predictions", "references"):
        with pytest.raises(ValueError, match=r"missing|needs both"):
            load(name).compute(**{alone: inputs(name)[alone]}, **options(name))


@pytest.mark.parametrize("name", METRICS)
def test_nothing_to_compute_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="call `add` or `add_batch` at least once"):
        load(name).compute(**options(name))


@pytest.mark.parametrize(
    ("name", "unknown"),
    [("eer", {"method": "hull"}), ("min_dcf", {"ptarget": 0.5}), ("ossi", {"far": [0.5]})],
)
def test_an_option_that_loading_does_not_know_is_not_swallowed(
    name: str, unknown: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(unknown))):
        load(name, **unknown)


def test_the_cards_have_the_published_values() -> None:
    cards = {
        name: " ".join((ROOT / "metrics" / name / "README.md").read_text("utf-8").split())
        for name in METRICS
    }
    for published in PUBLISHED.values():
        assert f"{published.finetuned.eer_percent / 100:.5f} (" in cards["eer"]
        assert f"{published.finetuned.min_dcf} (" in cards["min_dcf"]
