"""``score ... --format``: rows for a paper, with intervals and marks, all texts escaped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.cli.score_rows import PaperTable, table_lines

NAMES = [f"id{10000 + s}/abcdefghij{s}/{n:05}.wav" for s in range(12) for n in range(3)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    generator = np.random.default_rng(13)
    vectors = np.repeat(generator.normal(size=(12, 8)), 3, axis=0)
    np.save(folder / "res_net.npy", (vectors + generator.normal(size=(36, 8))).astype(np.float32))
    (folder / "res_net.txt").write_text("\n".join(NAMES))
    pairs = [
        f"{int(i // 3 == j // 3)} {NAMES[i]} {NAMES[j]}\n" for i in range(36) for j in range(i)
    ]
    (folder / "trials").write_text("".join(pairs))
    (folder / "bare").write_text("a b\n")
    (folder / "gender").write_text("".join(f"{n} m&{i // 3 % 2}\n" for i, n in enumerate(NAMES)))
    lines = [f"{name} {row // 3}\n" for row, name in enumerate(NAMES)]
    (folder / "p_1").mkdir()
    (folder / "p_1" / "gallery").write_text("".join(lines[:18:3]))
    (folder / "p_1" / "probe").write_text("".join(lines[1:18:3] + lines[18:]))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> list[str]:
    capsys.readouterr()
    assert main(["score", *map(str, words)]) == code
    return capsys.readouterr().out.splitlines()


def sv(files: Path, *words: object) -> list[object]:
    return [*("sv", "--trials", files / "trials", "--embeddings", files / "res_net.npy"), *words]


def test_a_row_of_latex_has_what_the_report_has(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = sv(files, "--interval", "trials", "--p-target", 0.01, 0.5)
    record = json.loads("".join(printed(capsys, *words, "--json")))
    rate, ends = 100 * record["eer"], record["intervals"]
    low, high = (100 * end for end in ends["eer"])
    costs = [cost["min_dcf"] for cost in record["min_dcf"]]
    least, most = ends["min_dcf"]
    lines = printed(capsys, *words, "--format", "latex")
    assert lines == [
        r"System & EER (\%) & minDCF (0.01) & minDCF (0.5) \\",
        r"\hline",
        rf"res\_net & {rate:.3f} {{[}}{low:.3f}, {high:.3f}{{]}}{{*}} & {costs[0]:.4f} "
        rf"{{[}}{least:.4f}, {most:.4f}{{]}}{{*}} & {costs[1]:.4f}{{*}} \\",
        "% 630 of 630 trials.",
        "% In brackets: 95 % intervals, 1,000 resamples of trials.",
        "% * Fewer than 30 errors of a kind: too few to rely on the rate.",
    ]


def test_markdown_has_a_row_for_each_condition(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = sv(files, "--condition", files / "gender", "--format", "markdown")
    lines = printed(capsys, *words)
    assert lines[:2] == ["| System | EER (%) | minDCF (0.01) |", "|---|---:|---:|"]
    rows = [line.split(" | ")[0] for line in lines[2:9]]
    values = [r"m\&0", r"m\&0/m\&1", r"m\&1", r"m\&1/m\&0"]
    assert rows == [
        r"| res\_net",
        *(rf"| res\_net, condition {value}" for value in values),
        r"| res\_net, condition, mean",
        r"| res\_net, condition, equalized",
    ]
    assert lines[4].endswith("| - | - |")
    assert lines[9:] == [
        "",
        "630 of 630 trials.",
        "",
        r"\* Fewer than 30 errors of a kind: too few to rely on the rate.",
    ]


def test_open_set_has_a_row_for_each_protocol(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ossi", "--protocol", files, "--embeddings", files / "res_net.npy", "--far", 0.1]
    record = json.loads("".join(printed(capsys, *words, "--json")))["protocols"][0]
    header, _, row, *_ = printed(capsys, *words, "--format", "markdown")
    assert header == r"| System | Protocol | DIR (%) at FAR 0.1 | AUC | Rank-1 (%) |"
    assert row == (
        rf"| res\_net | p\_1 | {100 * record['dir@far=0.1']:.2f}\* | {record['auc']:.4f} | "
        f"{100 * record['rank1']:.2f} |"
    )


def test_a_row_needs_rates_and_is_no_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sv", "--trials", files / "bare", "--embeddings", "x.npy", "--out", "x.txt"]
    printed(capsys, *words, "--format", "latex", code=2)
    message = printed(capsys, *sv(files), "--format", "latex", "--json", code=2)
    assert "two forms of the same output" in message[0]


def test_no_text_acts() -> None:
    table = PaperTable([r"a\b", "50%"], [["[x]*", "1_2|3"], ["\x1b$<i>~^{}#&", "`c`"]], ["n\n*o*"])
    assert table_lines(table, "latex") == [
        r"a\textbackslash{}b & 50\% \\",
        r"\hline",
        r"{[}x{]}{*} & 1\_2\textbar{}3 \\",
        r"\textbackslash{}x1b\$\textless{}i\textgreater{}\textasciitilde{}"
        r"\textasciicircum{}\{\}\#\& & `c` \\",
        r"% n\n*o*",
    ]
    assert table_lines(table, "markdown") == [
        r"| a\\b | 50% |",
        "|---|---:|",
        r"| \[x\]\* | 1\_2\|3 |",
        r"| \\x1b\$\<i\>\~^{}\#\& | \`c\` |",
        "",
        r"n\\n\*o\*",
    ]
