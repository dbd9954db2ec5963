"""The page of a gallery, from small run directories as the tasks leave them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tables import row, table

from optexp.errors import BadInput
from optexp.optimizer_table.page import write_page
from optexp.records.run_directory import RunRecord


def record(path: Path, task: str, result: dict[str, Any], optimizer: str = "sgd", status: str = "completed") -> None:
    path.mkdir(parents=True)
    info = {
        "task": task,
        "choices": {"optimizer": optimizer},
        "environment": {"torch": "2.12.1", "python": "3.11.9"},
        "optexp_git": {"commit": "0123456789abcdef", "dirty": True},
    }
    command = ["optexp", f"task={task}", "task.x=['a b']", f"hydra.run.dir={path}"]
    run = RunRecord.create(path, {"seed": 0}, command, info)
    (path / "result.json").write_text(json.dumps(result))
    run.finish(status, None, wall_time=30.0)


def check(name: str, verdict: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "explanation": "as expected.", "step": None, "known": None} | changes


def audit(optimizer: str, *checks: dict[str, Any]) -> dict[str, Any]:
    counts = {
        "passed": sum(c["verdict"] == "pass" for c in checks),
        "failed": sum(c["verdict"] == "fail" for c in checks),
        "not_applicable": sum(c["verdict"] == "not applicable" for c in checks),
    }
    return {
        "optimizer": optimizer,
        "rule": {"name": "sgd", "source": "its paper"},
        "counts": counts,
        "checks": [*checks],
    }


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    record(folder / "optimizer_table", "optimizer_table", table(row("sgd"), row("adam")))
    (folder / "optimizer_table" / "figures").mkdir()
    (folder / "optimizer_table" / "figures" / "learning_rates.png").write_bytes(b"rates")
    late = check("lr changes", "fail", step=2, explanation="one step late", known="pytorch#1: a schedule is late")
    good, other = check("rule", "pass"), check("closure", "not applicable")
    record(folder / "audit" / "sgd", "audit", audit("torch.optim.SGD", good, good, other), "sgd")
    record(folder / "audit" / "asgd", "audit", audit("torch.optim.ASGD", good, late), "asgd")
    (folder / "audit" / "adamw8bit.txt").write_text("warning\noptexp: optimizer: needs bitsandbytes\n")
    walked = {"optimizer": "sgd", "lr": 0.01, "steps_to_threshold": 40.4, "arrived": 3, "final_loss": 1e-5}
    walked["arrivals"] = [40, 41, None, 40]
    lost = walked | {"optimizer": "adam", "steps_to_threshold": None, "final_loss": None}
    surface = {"formula": "x² + 100 y²", "optimizers": [walked, lost]}
    record(folder / "surface", "surface", {"surfaces": {"ravine": surface}})
    (folder / "surface" / "figures").mkdir()
    for name in ("ravine.png", "overview.png", "ravine.gif"):
        (folder / "surface" / "figures" / name).write_bytes(name.encode())
    return folder


def test_the_page_says_what_the_results_say(gallery: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "optimizers.md"
    write_page(gallery, page)
    text = page.read_text()
    assert "commit 0123456789ab with changes, torch 2.12.1, Python 3.11.9" in text
    assert "2 min 00 s in all" in text
    assert "hydra.run.dir" not in text
    assert "`optexp task=optimizer_table \"task.x=['a b']\"`" in text
    assert "| adam | 0.1 | 4.0 | 6.5 | 1.25 (1.20 to 1.31) |" in text
    assert "| sgd | `torch.optim.SGD` | 2 | 0 | its paper |" in text
    assert "| asgd | `torch.optim.ASGD` | 1 | **1** | its paper |" in text
    late = "- asgd, *lr changes* (first at step 2): one step late. Known upstream: pytorch#1: a schedule is late."
    assert late in text.splitlines()
    assert "optimizer: needs bitsandbytes" in text
    assert text.index("| asgd |") < text.index("| sgd | `torch"), "audits in the order of names"
    assert (page.parent / "figures/optimizers/learning_rates.png").read_bytes() == b"rates"
    assert (page.parent / "figures/optimizers/ravine.gif").read_bytes() == b"ravine.gif"
    assert "| sgd | 0.01 | 1.00e-05 | 40 (3/4 paths) |" in text
    assert "| adam | 0.01 | diverged | never |" in text
    shown = re.findall(r"[(]figures/optimizers/(.*)[)]", text)
    assert shown == ["learning_rates.png", "overview.png", "ravine.png", "ravine.gif"]


def test_a_gallery_without_a_table_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "optimizer_table", "optimizer_table", {}, status="interrupted")
    with pytest.raises(BadInput, match="holds no finished run of task=optimizer_table"):
        write_page(tmp_path, tmp_path / "page.md")
