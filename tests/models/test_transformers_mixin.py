"""The tests that transformers has for all models pass for ours, or do not apply."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import transformers

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / ".transformers-tests" / f"transformers-{transformers.__version__}"
CASES = ROOT / "tests" / "support" / "transformers_mixin.py"

# Why a test leaves itself out: words of transformers, and what they mean here.
NOT_APPLICABLE = {
    r"requires|No accelerator": "needs an accelerator, or a package that this environment lacks",
    r"attention|sdpa|decoder|grouped_mm|sequence-to-sequence": "our networks are no transformers",
    r"inputs_embeds|position embeddings|test_resize_embeddings|no nn.Embedding": "nor have tokens",
    r"experts|router|TP plan|subconfig|composite": "nor parts of that kind",
    r"_keep_in_fp32_modules|No conversion found": "no option of ours",
    r"capture_outputs|Cannot capture hidden states": "hidden states are collected by us",
    r"base_model_class": "one class is the base model and the one with a head",
    r"prioritized|is slow": "left out by transformers itself",
    r"differentiable loss": "looks for a loss of classes that it knows by name",
}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["TestEcapaTdnn", "TestSpeakerResNet"])
def test_the_mixin_of_transformers(model: str, tmp_path: Path) -> None:
    if not SOURCES.exists():
        pytest.skip("the sources are fetched by: make .transformers-tests/.ready")
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", f"{CASES}::{model}", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "-W", "ignore", "-q", f"--junitxml={report}", "-rf", "--tb=short"]
    paths = os.pathsep.join([str(SOURCES), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]
    cases = list(ET.parse(report).iter("testcase"))
    marks = {case.get("name"): case.find("skipped") for case in cases}
    reasons = {name: mark.get("message", "") for name, mark in marks.items() if mark is not None}
    unknown = {
        name: reason
        for name, reason in reasons.items()
        if not any(re.search(pattern, reason) for pattern in NOT_APPLICABLE)
    }
    assert not unknown
    assert len(marks) - len(reasons) >= 60
