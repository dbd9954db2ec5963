"""The benchmark from end to end on a part of its plants: trained by the product, diagnosed, scored and shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fault_benchmark
import fault_tables
import pytest
import torch
from fault_training import LABELS, directory, train, write_labels
from harm import counted
from plants import Plant, plants

from optexp.diagnosis.causes import CAUSES
from optexp.records.reading import Run


def first_of_each(family: str) -> list[Plant]:
    """Return the first plant of each cause, and a healthy one."""
    chosen: dict[str | None, Plant] = {}
    for plant in plants(family):
        chosen.setdefault(plant.cause, plant)
    return list(chosen.values())


def trained(chosen: Sequence[Plant], folder: Path) -> dict[str | None, tuple[Plant, Run]]:
    threads = torch.get_num_threads()
    runs = train(chosen, folder)
    torch.set_num_threads(threads)
    return {plant.cause: (plant, run) for plant, run in zip(chosen, runs, strict=True)}


@pytest.fixture(scope="module")
def mlp_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, tuple[Plant, Run]]:
    return trained(first_of_each("mlp"), tmp_path_factory.mktemp("faults") / "mlp")


@pytest.mark.slow
@pytest.mark.parametrize("cause", CAUSES)
def test_a_planted_fault_is_found_first(mlp_runs: dict[str | None, tuple[Plant, Run]], cause: str) -> None:
    plant, run = mlp_runs[cause]
    said = fault_benchmark.answer(plant, run)
    assert said.is_right, (plant.name, said.findings)


@pytest.mark.slow
def test_nothing_is_found_in_a_healthy_run(mlp_runs: dict[str | None, tuple[Plant, Run]]) -> None:
    assert not fault_benchmark.answer(*mlp_runs[None]).findings


SHORT = ("engine.max_steps=20", "engine.eval_every=10", "engine.checkpoint_every=null")


def short_plants() -> tuple[Plant, ...]:
    """Return a family of six plants that are trained in a second: three references, a healthy run and two faults."""
    common = ("model=mlp", "model.hidden=[16]", "dataset=digits", *SHORT, "optimizer=adam", "schedule=constant")

    def plant(cause: str | None, lr: float, seed: int, reference: bool = False) -> Plant:
        words = (*common, f"optimizer.lr={lr}", f"seed={seed}")
        right = frozenset([cause] if cause else [])
        return Plant("mlp", "adam", f"adam optimizer.lr={lr}", seed, words, cause, right, None, reference)

    return (
        *(plant(None, 0.03, seed, reference=True) for seed in range(3)),
        plant(None, 1e-4, 3),  # does not train in 20 steps, so that it must be dropped
        plant("step-too-small", 1e-5, 4),
        plant("step-too-small", 0.02, 5),  # does no harm
    )


def test_what_does_no_harm_and_what_does_not_train_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fault_benchmark, "plants", lambda family, seeds: short_plants())
    page = tmp_path / "page.md"
    page.write_text(f"# Diagnosis\n\n{fault_tables.BEGIN}\n{fault_tables.END}\n")
    threads = torch.get_num_threads()
    argv = ["--runs", str(tmp_path / "runs"), "--family", "mlp", "--seeds", "fresh", "--page", str(page)]
    assert fault_benchmark.main(argv) == 0
    torch.set_num_threads(threads)
    printed = capfd.readouterr().out
    assert "### Fitted families, fresh seeds: mlp" in printed
    assert "1 faulty and 3 healthy runs." in printed
    assert "1 healthy, 1 step-too-small." in printed
    assert printed.strip() in page.read_text()
    labels = json.loads((tmp_path / "runs" / "mlp-fresh" / LABELS).read_text())
    assert [label["counts"] for label in labels.values()] == [True, True, True, False, True, False]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"mlp-fresh"}, "nothing else was asked for"
    for name in ("reliability.png", "decades.png"):
        assert (tmp_path / "figures" / "diagnosis" / name).read_bytes().startswith(b"\x89PNG")


def test_runs_that_exist_are_not_trained_again(tmp_path: Path) -> None:
    folder, chosen = tmp_path / "runs", short_plants()[:3]
    threads = torch.get_num_threads()
    before = {path: path.stat().st_mtime_ns for run in train(chosen[:2], folder) for path in run.path.iterdir()}
    runs = train(chosen, folder)
    torch.set_num_threads(threads)
    assert [run.path.name for run in runs] == [directory(plant) for plant in chosen]
    assert [run.status for run in runs] == ["completed"] * 3
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_labels(tmp_path: Path) -> None:
    plant = plants("mlp")[-1]
    write_labels([plant], [True], tmp_path)
    label: dict[str, Any] = json.loads((tmp_path / LABELS).read_text())[directory(plant)]
    assert label["cause"] == "epsilon-too-large"
    assert label["right"] == ["epsilon-too-large"]
    assert label["counts"] is True


def fake_run(folder: Path, losses: Sequence[float], status: str = "completed") -> Run:
    """Return the record of a run with these evaluations; frequencies alone give a loss of 2.3."""
    folder.mkdir()
    rows = [{"step": 10 * number, "val/loss": loss} for number, loss in enumerate(losses, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {"val/loss": losses[-1]}
    return Run(folder, {"status": status, "metrics": metrics, "baselines": {"class frequencies": 2.3}})


@pytest.mark.parametrize(
    ("losses", "twin_loss", "counts"),
    [
        ([0.5, 0.4, 1.0], 0.2, True),
        ([0.5, 0.4, 0.3], 0.2, False),  # no harm: the limit is 0.41
        ([2.0, 1.5, 1.0], 0.2, False),  # never good: it had to make 0.7 of the way from 2.3 to 0.2
        ([0.5, 0.4, 1.0], 0.6, False),  # not even a falling rate repairs it
    ],
)
def test_late_oscillation_is_more_than_harm(
    tmp_path: Path, losses: list[float], twin_loss: float, counts: bool
) -> None:
    def plant(arm: str, cause: str | None, **more: Any) -> Plant:
        return Plant("mlp", "sgd", arm, 0, (), cause, frozenset(), None, **more)

    every = [*(plant("good", None, reference=True) for _ in range(3)), plant("twin", None)]
    every.append(plant("late", "late-oscillation", twin="twin"))
    ends = [[0.2], [0.2], [0.2], [twin_loss], losses]
    runs = [fake_run(tmp_path / str(number), end) for number, end in enumerate(ends)]
    assert counted(every, runs)[-1] is counts
