"""`optexp task=sharpness task.run=DIR` from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from command_line import everything_in, here, runs_in

from optexp.records.reading import Run, read_run

TINY = ("model=mlp", "model.hidden=[6]", "engine.max_steps=20", "schedule=constant")
FEW = (
    *("task=sharpness", "task.samples=100", "task.trace_draws=8", "task.filter_draws=4", "task.points=5"),
    *("task.plane_points=3", "task.ascent_steps=2", "task.eigenvalues=2"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for words in (
        ("name=sgd", *TINY),
        ("name=adam", *TINY, "optimizer=adam"),
        ("name=wide", *TINY, "model.hidden=[7]"),
        ("name=lion", *TINY, "optimizer=lion"),
        ("name=two", *TINY, "optimizer.lr=1.5", "engine.eval_every=2", "engine.checkpoint_every=2"),
    ):
        ended = here(folder, *latest(words))
        assert ended.status == 0, ended.err
    return folder


def latest(words: Iterable[str]) -> list[str]:
    """Return the last word of each key: the command line takes one."""
    return list({word.partition("=")[0]: word for word in words}.values())


def of(folder: Path, name: str) -> Run:
    return next(
        run for run in runs_in(folder) if run.config["name"] == name and run.info.get("task") in (None, "train")
    )


def measured_in(folder: Path, *words: str) -> tuple[str, Run]:
    before = {run.path for run in runs_in(folder)}
    ended = here(folder, *latest([*FEW, *words]))
    assert ended.status == 0, ended.err
    (path,) = {run.path for run in runs_in(folder)} - before
    return ended.out, read_run(path)


def test_one_line_a_table_and_files(folder: Path) -> None:
    run = of(folder, "sgd")
    before = everything_in(run.path)
    out, found = measured_in(folder, f"task.run={run.path}", "name=mine")
    assert everything_in(run.path) == before
    result = json.loads((found.path / "result.json").read_text())
    numbers = result["measured"]
    assert numbers["stability_limit"] == pytest.approx(2 * 1.9 / run.config["optimizer"]["lr"])
    factor = numbers["stability_limit"] / numbers["top_eigenvalue"]
    assert out.splitlines()[1] == result["answer"]
    assert f"of SGD at lr 0.05, by a factor of {max(factor, 1 / factor):.3g}" in result["answer"]
    assert ("below" if factor > 1 else "above") in result["answer"]
    assert len(result["spectrum"]["eigenvalues"]) == 2
    assert found.metrics["sharpness/top_eigenvalue"] == numbers["top_eigenvalue"]
    assert found.config["optimizer"] == run.config["optimizer"]
    assert found.config["model"] == run.config["model"]
    assert found.info["choices"]["model"] == "mlp"
    with (found.path / "sharpness.csv").open() as file:
        table = {row["quantity"]: row for row in csv.DictReader(file)}
    assert float(table["eigenvalue 1"]["value"]) == numbers["top_eigenvalue"]
    assert float(table["trace"]["value"]) == numbers["trace"]
    with (found.path / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    centre = [float(row["loss"]) for row in rows if row["split"] == "train" and float(row["x"]) == float(row["y"]) == 0]
    assert len(centre) == 1 + 2 + 1  # eigenvector, two random directions, plane
    assert centre == pytest.approx([numbers["train_loss"]] * 4, rel=1e-6)
    for name in ("slices.png", "plane.png"):
        assert (found.path / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_between_two_runs(folder: Path) -> None:
    first, second = of(folder, "adam"), of(folder, "sgd")
    out, found = measured_in(folder, f"task.run={first.path}", f"task.between={second.path}", "task.samples=null")
    result = json.loads((found.path / "result.json").read_text())
    panel = result["slices"]["panels"][1]
    at = {position: index for index, position in enumerate(panel["positions"])}
    val = next(values for _, values, split in panel["lines"] if split == "val")
    assert val[at[0.0]] == pytest.approx(first.metrics["val/loss"], rel=1e-5)
    assert val[at[1.0]] == pytest.approx(second.metrics["val/loss"], rel=1e-5)
    assert result["slices"]["barrier"] >= 0
    assert "barrier between the two" in out
    assert "38,000" in result["answer"]
    assert "preconditioned" in result["answer"]


def test_from_the_best_checkpoint_of_a_run_to_its_last(folder: Path) -> None:
    """The best one is read at its own step, and the run's record says which losses both had."""
    run = of(folder, "two")
    words = (f"task.run={run.path}", f"task.between={run.path}", "task.checkpoint=best", "task.samples=null")
    out, found = measured_in(folder, *words, "task.between_checkpoint=last")
    result = json.loads((found.path / "result.json").read_text())
    steps, losses = run.series("val/loss")
    best = losses.index(min(losses))
    assert steps[best] < run.last_step
    assert (result["step"], result["checkpoint"]) == (steps[best], "best")
    assert result["between"] == {"run": str(run.path), "checkpoint": "last", "step": run.last_step}
    panel = result["slices"]["panels"][1]
    val = next(values for _, values, split in panel["lines"] if split == "val")
    assert val[panel["positions"].index(0.0)] == pytest.approx(losses[best], rel=1e-5)
    assert val[panel["positions"].index(1.0)] == pytest.approx(losses[-1], rel=1e-5)
    marks = {f"best, step {steps[best]}": 0.0, f"last, step {run.last_step}": 1.0}
    assert panel["marks"] == marks
    assert result["slices"]["plane"]["marks"] == {label: [x, 0.0] for label, x in marks.items()}
    assert f"at step {run.last_step} (last)" in out


def test_where_no_limit_is_known_it_says_so(folder: Path) -> None:
    out, found = measured_in(folder, f"task.run={of(folder, 'lion').path}", "task.plane_points=0", "task.directions=0")
    assert "no stability limit is known for Lion" in out.splitlines()[1]
    assert "sharpness/stability_limit" not in found.metrics
    assert not (found.path / "figures" / "plane.png").exists()


def test_an_eigenvalue_that_has_not_converged_is_told(folder: Path) -> None:
    out, _ = measured_in(
        folder, f"task.run={of(folder, 'sgd').path}", "task.max_products=2", "task.plane_points=0", "task.directions=0"
    )
    assert "not converged after" in out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "task.run must be set: add task.run=DIR"),
        (["task.run=nowhere"], "task.run=nowhere: "),
        (["task.run={sgd}", "optimizer.lr=0.1"], "optimizer.lr: task=sharpness does not use the group 'optimizer'"),
        (["task.run={sgd}", "model=mlp"], "model: task=sharpness does not use the group 'model'"),
        (["task.run={sgd}", "experiment=exp2_sgd_B32"], "experiment=exp2_sgd_B32: task=sharpness takes model, data"),
        (["task.run={sgd}", "task.between={wide}"], "task.between={wide}: is a run of another model"),
        (
            ["task.run={sgd}", "task.between={sgd}"],
            "task.between={sgd}: is checkpoint 'last' of task.run itself; allow",
        ),
        (
            ["task.run={sgd}", "task.between_checkpoint=best"],
            "task.between_checkpoint=best: is that of task.between=DIR, which is null",
        ),
        (["task.run={sgd}", "task.rho=0"], "task.rho=0: allowed is"),
        (["task.run={sgd}", "task.plane_points=2"], "task.plane_points=2: allowed are 0 and integers ≥ 3"),
        (["task.run={sgd}", "task.trace_draws=1"], "task.trace_draws=1: allowed is"),
        (["task.run={sgd}", "task.device=cuda"], "engine.device=cuda"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder: Path, words: list[str], message: str) -> None:
    names = {name: str(of(folder, name).path) for name in ("sgd", "wide")}
    before = everything_in(folder)
    ended = here(folder, "task=sharpness", *(word.format(**names) for word in words))
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert message.format(**names) in ended.err
    assert everything_in(folder) == before


def test_a_measurement_is_no_run_to_measure(folder: Path) -> None:
    _, found = measured_in(folder, f"task.run={of(folder, 'sgd').path}", "task.plane_points=0", "task.directions=0")
    ended = here(folder, "task=sharpness", f"task.run={found.path}")
    assert ended.status == 2
    assert "is a run of task=sharpness, which trains no model" in ended.err
