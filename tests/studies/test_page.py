"""The page of all studies says what their records say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optexp.errors import BadInput
from optexp.studies.page import OPEN, write_page


def answer(verdict: str, estimate: float | None, method: str = "t") -> dict[str, Any]:
    interval = {"estimate": estimate, "low": (estimate or 0) - 0.5, "high": (estimate or 0) + 0.5, "method": method}
    return {
        "statement": f"it is {verdict}",
        "unit": "nats",
        "supported_if": "above",
        "smallest": 0.25,
        "interval": None if estimate is None else interval,
        "per_seed": [] if estimate is None else [estimate - 0.1, estimate + 0.1],
        "verdict": verdict,
        "text": f"So it is {verdict}.",
    }


def study(name: str, claim: str, **answers: dict[str, Any]) -> dict[str, Any]:
    return {
        "study": name,
        "claim": [claim],
        "source": "001",
        "question": f"What of {name}?",
        "limits": "It is small.",
        "command": ["optexp", "study=all", "output_dir=elsewhere"],
        "status": "completed",
        "seconds": 61.0,
        "date": "2026-01-31T12:00:00+00:00",
        "versions": {"torch": "2.12.1", "python": "3.11.7", "cpus": 2},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "chosen": {"sgd": ["optimizer.lr=0.1"]},
        "runs": {"final": {"completed": 15, "diverged": 1}},
        "answers": answers,
    }


def made(folder: Path, *studies: dict[str, Any]) -> Path:
    for content in studies:
        (folder / content["study"]).mkdir(parents=True)
        (folder / content["study"] / "study.json").write_text(json.dumps(content))
    (folder / "studies.json").write_text(json.dumps({"studies": [content["study"] for content in studies]}))
    return folder


def test_the_page_has_every_answer_in_the_order_of_the_claims(tmp_path: Path) -> None:
    late = study("late", "C20", one=answer("refuted", 0.0), other=answer("inconclusive", None))
    early = study("early", "C3", only=answer("supported", 1.0), exact=answer("supported", 2.0, "exact"))
    page = tmp_path / "docs" / "studies.md"
    page.parent.mkdir()
    write_page(made(tmp_path / "run", late, early), page)
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| C")]
    assert rows == [
        "| C3 | [early](#early) | **supported** | it is supported | 1.0000 nats | 0.5000 to 1.5000 |",
        "| C3 | [early](#early) | **supported** | it is supported | 2.0000 nats | exact |",
        "| C20 | [late](#late) | **refuted** | it is refuted | 0 nats | -0.5000 to 0.5000 |",
        "| C20 | [late](#late) | **inconclusive** | it is inconclusive |  |  |",
    ]
    assert "from `optexp study=all`, 2026-01-31" in text
    assert "16 runs (final: 15 completed, 1 diverged)" in text
    assert "Tuned, each arm alike: sgd: optimizer.lr=0.1." in text
    assert "commit\n0123456789ab, torch 2.12.1, Python 3.11.7, 2 CPU cores" in text
    for name in ("early", "late"):
        assert (page.parent / "figures" / "studies" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"(figures/studies/{name}.png)" in text
    assert "- C26: waits for distributed training." in text
    assert "- C1: has no study yet." in text
    assert "- C3:" not in text


def test_main_effects_and_interactions_have_a_table(tmp_path: Path) -> None:
    ranked = [
        {"factors": ["lr"], "interval": answer("", 2.0)["interval"], "per_seed": [1.9, 2.1]},
        {"factors": ["lr", "decay"], "interval": answer("", 5.5e-17)["interval"], "per_seed": [0.0, 0.0]},
        {"factors": ["decay"], "interval": None, "per_seed": [None, 1.0]},
    ]
    factorial = study("factorial", "C2", only=answer("supported", 1.0)) | {"effects": {"accuracy": ranked}}
    page = tmp_path / "studies.md"
    write_page(made(tmp_path / "run", factorial), page)
    assert """\
| main effects and interactions on accuracy, largest first | effect | interval |
|---|---|---|
| lr | 2.0000 | 1.5000 to 2.5000 |
| lr × decay | 0 | -0.5000 to 0.5000 |
| decay | none | |
""" in page.read_text()


def test_unfinished_studies_are_listed_as_such(tmp_path: Path) -> None:
    half = study("half", "C1") | {"status": "interrupted"}
    with pytest.raises(BadInput, match="no study has come to its end yet; optexp resume goes on"):
        write_page(made(tmp_path / "run", half), tmp_path / "studies.md")
    write_page(made(tmp_path / "more", half, study("whole", "C2", only=answer("refuted", 0.0))), tmp_path / "some.md")
    text = (tmp_path / "some.md").read_text()
    assert "- half: interrupted." in text
    assert "## whole" in text
    assert "## half" not in text
    with pytest.raises(BadInput, match="is not the directory of several studies"):
        write_page(tmp_path, tmp_path / "studies.md")


def test_every_claim_has_a_study_or_is_said_to_be_open() -> None:
    from optexp.studies.study import read_studies

    answered = {claim for study in read_studies(["all"]) for claim in study.claim}
    assert {f"C{number}" for number in range(1, 30)} - answered == set(OPEN)
