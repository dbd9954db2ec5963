"""A run directory as a loss: what is rebuilt is what was trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from command_line import here, only_run, runs_in

from optexp.assemble import assemble
from optexp.config.check import check
from optexp.curvature.of_run import (
    IN_A_STUDY,
    SHARPNESS_FILE,
    Measuring,
    load_checkpoint,
    measure,
    measure_run,
    numbers,
    sharpness_row,
)
from optexp.curvature.samples import FixedSamples
from optexp.datasets.batches import EvalBatches
from optexp.datasets.digits import digits
from optexp.errors import BadInput
from optexp.records.reading import read_run

SMALL = ("model=mlp", "model.hidden=[6]", "dataset.batch_size=64", "engine.eval_every=10")
FEW = Measuring(samples=200, eigenvalues=2, trace_draws=8, filter_draws=4, ascent_steps=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of SGD whose learning rate falls, one of Adam, and one on tokens, trained for 30 steps."""
    folder = tmp_path_factory.mktemp("runs")
    text = folder / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    for words in (
        (
            "name=sgd",
            *SMALL,
            "engine.max_steps=30",
            "engine.checkpoint_every=10",
            "optimizer.dampening=0.5",
            "engine.label_smoothing=0.1",
        ),
        ("name=adam", *SMALL, "engine.max_steps=30", "optimizer=adam", "schedule=constant"),
        ("name=unkept", *SMALL, "engine.max_steps=2", "engine.checkpoint_every=null"),
        (
            *("name=tokens", "model=transformer", "model.width=8", "model.heads=2", "model.layers=1"),
            *("dataset=text", f"dataset.path={text}", "dataset.context_length=16", "dataset.batch_size=4"),
            *("optimizer=adamw", "engine.max_steps=5"),
        ),
    ):
        ended = here(folder, *words)
        assert ended.status == 0, ended.err
    return {run.config["name"]: run.path for run in runs_in(folder)}


def test_the_loss_is_that_of_the_run(runs: dict[str, Path]) -> None:
    """Its validation loss is the one that the run recorded at its end."""
    for name in ("sgd", "adam", "tokens"):
        checkpoint = load_checkpoint(runs[name], Measuring(samples=None))
        run = read_run(runs[name])
        assert checkpoint.step == run.last_step
        assert checkpoint.validation.value() == pytest.approx(run.metrics["val/loss"], rel=1e-5)


def test_training_loss_and_samples(runs: dict[str, Path]) -> None:
    """All samples once, with label smoothing; some of them for a seed, the same each time."""
    run = read_run(runs["sgd"])
    checkpoint = load_checkpoint(runs["sgd"], Measuring(samples=None))
    training = assemble(run.config, check(run.config, {}), {}, resuming=True)
    training.model.load_state_dict(checkpoint.training.model.state_dict())
    whole = training.batches._store.ready(training.batches._store.inputs), training.batches._store.targets
    with torch.no_grad():
        logits = training.model.eval()(whole[0])
    assert whole[1] is not None
    exact = torch.nn.functional.cross_entropy(logits, whole[1], label_smoothing=0.1)
    assert checkpoint.loss.value() == pytest.approx(float(exact), rel=1e-5)
    assert checkpoint.samples == len(whole[1])
    values = [load_checkpoint(runs["sgd"], Measuring(samples=100), seed).loss.value() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_batches_change_memory_and_not_the_result(runs: dict[str, Path]) -> None:
    found = [
        load_checkpoint(runs["tokens"], Measuring(samples=40, batch_size=size, float64=True)).loss
        for size in (1, 7, 1000)
    ]
    vector = torch.randn(1, found[0].size, dtype=torch.float64)
    first = found[0].hessian_products(vector)
    for other in found[1:]:
        assert other.value() == pytest.approx(found[0].value(), rel=1e-12)
        torch.testing.assert_close(other.hessian_products(vector), first, rtol=1e-9, atol=1e-12)
    assert max(len(batch.targets) for batch in found[1].batches) == 7


def test_some_samples_of_a_split() -> None:
    data = digits(0, 0.15, 0.15)
    whole = torch.cat([batch.inputs for batch in EvalBatches(data, data.train, "cpu")])
    some = torch.cat([batch.inputs for batch in FixedSamples(data, data.train, 50, 0, torch.device("cpu"), 16)])
    assert len(some) == 50
    matches = (some[:, None] == whole[None]).flatten(2).all(2)
    assert bool(matches.any(1).all())
    assert len(set(matches.int().argmax(1).tolist())) == 50


def test_the_stability_limit_of_the_run_s_own_settings(runs: dict[str, Path]) -> None:
    sgd = load_checkpoint(runs["sgd"], FEW)
    rows = read_run(runs["sgd"]).series("optim/lr")[1]
    assert sgd.lr == rows[-1] < sgd.largest_lr == max(rows)
    limit = 2 * (1 + 0.9) / (max(rows) * (1 - 0.5))
    row = numbers(sgd, measure(sgd, FEW))
    assert row["stability_limit"] == pytest.approx(limit)
    assert row["stability_ratio"] == pytest.approx(row["top_eigenvalue"] / limit)
    assert "preconditioned_eigenvalue" not in row
    adam = load_checkpoint(runs["adam"], FEW)
    row = numbers(adam, measure(adam, FEW))
    assert row["stability_limit"] == pytest.approx(38 / adam.lr)
    assert row["stability_ratio"] == pytest.approx(row["preconditioned_eigenvalue"] / row["stability_limit"])


def test_the_preconditioned_eigenvalue_is_that_of_the_dense_matrix(runs: dict[str, Path]) -> None:
    settings = dataclasses.replace(FEW, float64=True, samples=50)
    adam = load_checkpoint(runs["adam"], settings)
    preconditioner = adam.stability.preconditioner
    assert preconditioner is not None
    hessian = adam.loss.hessian_products(torch.eye(adam.loss.size, dtype=torch.float64))
    exact = torch.linalg.eigvals(hessian / preconditioner[:, None]).real.max()  # of P^-1 H, which is not symmetric
    found = measure(adam, settings).preconditioned
    assert found is not None
    assert found.eigenvalues[0] == pytest.approx(float(exact), rel=1e-5)


def test_measure_run_and_a_run_s_sharpness(runs: dict[str, Path]) -> None:
    single, double = (measure_run(runs["adam"], dataclasses.replace(FEW, float64=f)) for f in (False, True))
    assert single.keys() == double.keys()
    for name in ("top_eigenvalue", "trace", "sam", "filter_normalized", "train_loss"):
        assert single[name] == pytest.approx(double[name], rel=1e-3)
    row = sharpness_row(runs["adam"])
    assert row == {f"sharpness/{name}": value for name, value in measure_run(runs["adam"], IN_A_STUDY).items()}
    for name in ("top_eigenvalue", "trace", "sam", "filter_normalized"):
        assert row[f"sharpness/{name}"] > 0


def test_what_was_measured_is_kept_and_not_taken_for_something_else(runs: dict[str, Path]) -> None:
    file = runs["adam"] / SHARPNESS_FILE
    row = sharpness_row(runs["adam"])
    content = json.loads(file.read_text())
    assert content["row"] == row
    file.write_text(json.dumps({**content, "row": {"sharpness/trace": 7.0}}))
    assert sharpness_row(runs["adam"]) == {"sharpness/trace": 7.0}
    for damaged in (json.dumps({**content, "how": {**content["how"], "step": 1}}), '{"how', "[]"):
        file.write_text(damaged)
        assert sharpness_row(runs["adam"]) == row
        assert json.loads(file.read_text()) == content


def test_what_cannot_be_measured_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no checkpoint 'last'"):
        measure_run(runs["unkept"])
    with pytest.raises(BadInput, match="no such folder"):
        measure_run(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="is not a run directory"):
        measure_run(tmp_path)


def test_a_member_of_a_sweep_that_was_trained_with_others(tmp_path: Path) -> None:
    ended = here(tmp_path, "-m", "seed=0,1", "model=mlp", "model.hidden=[6]", "engine.max_steps=4")
    assert ended.status == 0, ended.err
    for run in runs_in(tmp_path):
        checkpoint = load_checkpoint(run.path, Measuring(samples=None))
        assert checkpoint.validation.value() == pytest.approx(run.metrics["val/loss"], rel=1e-5)


def test_batch_normalization_uses_its_running_statistics(tmp_path: Path) -> None:
    words = ("model=resnet", "model.width=2", "engine.max_steps=3", "dataset.batch_size=16", "engine.precision=bf16")
    ended = here(tmp_path, *words)
    assert ended.status == 0, ended.err
    checkpoint = load_checkpoint(only_run(tmp_path).path, Measuring(samples=40, float64=True))
    assert checkpoint.loss.weights().dtype == torch.float64
    torch.manual_seed(0)
    way = 1e-4 * torch.randn(1, checkpoint.loss.size, dtype=torch.float64)
    weights = checkpoint.loss.weights()
    gradients = []
    for sign in (1, -1):
        with checkpoint.loss.at(weights + sign * 1e-3 * way[0]):
            gradients.append(checkpoint.loss.gradient())
    expected = (gradients[0] - gradients[1]) / 2e-3
    torch.testing.assert_close(checkpoint.loss.hessian_products(way)[0], expected, rtol=1e-3, atol=1e-6)
