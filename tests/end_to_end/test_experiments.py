"""Named experiments: all can be run, alone and with another model and data set; the failures show their symptoms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from command_line import TINY, here, only_run, runs_in

from optexp.help import groups, shipped_folder
from optexp.records.reading import Run
from optexp.studies.measures import Measure, measured

EXPERIMENTS = list(groups([shipped_folder()])["experiment"])
FINETUNING = [name for name in EXPERIMENTS if name.startswith("finetune_")]
ABOUT_DATA = [name for name in EXPERIMENTS if name.startswith("line_fit_")]
FAILURES = ["lr_too_large", "lr_too_small", "overfitting", "late_oscillation"]
OTHERS = {
    "mlp on shapes": ["model=mlp", "dataset=shapes", "dataset.num_images=200", "dataset.batch_size=2"],
    "transformer on text": ["model=transformer", "dataset=pydocs"],
    "linear on a line": ["model=linear", "dataset=line", "dataset.batch_size=2"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run to start from: a small network on digits."""
    folder = tmp_path_factory.mktemp("trained")
    assert here(folder, *TINY).status == 0
    return only_run(folder).path


def test_the_experiments_of_the_guides_are_there() -> None:
    fixes = ["exp2_fix_dampening", "exp2_fix_lr", "exp2_fix_weight_decay", "exp2_sgd_B32_fixed"]
    guide = ["cnn_sgd", "transformer_adamw", "transformer_sgd", "no_warmup", "no_clipping"]
    failures = [name + suffix for name in FAILURES for suffix in ("", "_fixed")]
    expected = {"exp1_adam_B32", "exp2_sgd_B32", *fixes, *guide, *failures, *FINETUNING, *ABOUT_DATA}
    assert set(EXPERIMENTS) == expected
    assert (len(FINETUNING), len(ABOUT_DATA)) == (2, 2)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_run(tmp_path: Path, trained: Path, name: str) -> None:
    start = [*TINY[:2], f"engine.init_from={trained}"] if name in FINETUNING else []
    ended = here(tmp_path, f"experiment={name}", *start, "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in FINETUNING])
def test_every_experiment_takes_another_model_and_data_set(tmp_path: Path, name: str, others: str) -> None:
    ended = here(tmp_path, f"experiment={name}", *OTHERS[others], "--dry-run")
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("name", FINETUNING)
def test_finetuning_needs_a_run_to_start_from(tmp_path: Path, trained: Path, name: str) -> None:
    refused = here(tmp_path, f"experiment={name}", *TINY)
    assert refused.status == 2
    assert refused.err.startswith("optexp: engine.init_from=must be set: no checkpoint there; give a run directory")
    assert refused.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert here(tmp_path, f"experiment={name}", *TINY, f"engine.init_from={trained}").status == 0
    assert only_run(tmp_path).config["engine"]["init_from"] == str(trained)


def settings(name: str) -> dict[str, object]:
    """Return what an experiment's file sets, as dotted keys."""
    node = yaml.safe_load((shipped_folder() / "experiment" / f"{name}.yaml").read_text())
    groups = {key: value for key, value in node.items() if isinstance(value, dict)}
    flat = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    return flat | {"defaults": node["defaults"]}


@pytest.mark.parametrize(
    ("first", "second", "changed"),
    [
        ("exp2_sgd_B32", "exp2_fix_dampening", {"optimizer.dampening"}),
        ("exp2_sgd_B32", "exp2_fix_lr", {"optimizer.lr"}),
        ("exp2_sgd_B32", "exp2_fix_weight_decay", {"optimizer.weight_decay"}),
        (
            "exp2_sgd_B32",
            "exp2_sgd_B32_fixed",
            {"optimizer.dampening", "optimizer.lr", "optimizer.weight_decay"},
        ),
        ("lr_too_large", "lr_too_large_fixed", {"optimizer.lr"}),
        ("lr_too_small", "lr_too_small_fixed", {"optimizer.lr"}),
        ("overfitting", "overfitting_fixed", {"optimizer.lr", "optimizer.weight_decay"}),
        ("late_oscillation", "late_oscillation_fixed", {"schedule.factor", "schedule.patience"}),
        ("transformer_adamw", "no_warmup", {"schedule.warmup_fraction"}),
        ("transformer_adamw", "no_clipping", {"engine.clip_norm"}),
    ],
)
def test_nothing_else_is_changed(first: str, second: str, changed: set[str]) -> None:
    one, other = settings(first), settings(second)
    assert {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} == changed


def test_what_adam_ignored_is_recorded(tmp_path: Path) -> None:
    assert here(tmp_path, "experiment=exp1_adam_B32", *TINY).status == 0
    config = only_run(tmp_path).config
    assert config["remark"].startswith("the original code base was launched with sgd_dampening=0.9 and dropped it")
    assert "dampening" not in config["optimizer"]


def number(run: Run, of: str, take: str, value: float | None = None) -> float:
    """Return a measure of a run; a run that diverged has infinitely much of everything."""
    found = measured(run.rows, run.status, Measure(of, take, value, diverged=math.inf))  # type: ignore[arg-type]
    assert found is not None
    return found


def broken_and_fixed(folder: Path, name: str) -> tuple[Run, Run]:
    """Train an experiment and its remedy on the default model and data set."""
    for experiment in (name, f"{name}_fixed"):
        assert here(folder, f"experiment={experiment}").status in (0, 3)
    broken, fixed = runs_in(folder)
    assert (broken.choice("experiment"), fixed.choice("experiment")) == (name, f"{name}_fixed")
    return broken, fixed


@pytest.mark.slow
def test_too_large_a_learning_rate_lets_the_training_loss_shoot_up_at_once(tmp_path: Path) -> None:
    broken, fixed = broken_and_fixed(tmp_path, "lr_too_large")
    early = [[row for row in run.rows if row["step"] <= 20] for run in (broken, fixed)]
    rises = [measured(rows, "completed", Measure("train/loss", "largest_rise")) or 0 for rows in early]
    assert rises[0] > 2
    assert rises[1] < 1
    assert number(fixed, "val/accuracy", "last") > 0.95


@pytest.mark.slow
def test_too_small_a_learning_rate_leaves_the_loss_flat_for_20_epochs(tmp_path: Path) -> None:
    broken, fixed = broken_and_fixed(tmp_path, "lr_too_small")
    fallen = [number(run, "train/loss", "last") / number(run, "train/loss", "first") for run in (broken, fixed)]
    assert number(broken, "epoch", "last") > 20
    assert fallen[0] > 0.9
    assert fallen[1] < 0.85


@pytest.mark.slow
def test_overfitting_lets_the_validation_loss_rise_while_the_training_loss_falls(tmp_path: Path) -> None:
    broken, fixed = broken_and_fixed(tmp_path, "overfitting")
    assert number(broken, "train/loss", "last") < 0.05
    above_best = [number(run, "val/loss", "last") - number(run, "val/loss", "best") for run in (broken, fixed)]
    assert above_best[0] > 0.05
    assert above_best[1] < 0.02
    assert number(broken, "val/loss", "last") - number(fixed, "val/loss", "last") > 0.2


@pytest.mark.slow
def test_a_learning_rate_that_is_not_lowered_lets_the_loss_oscillate_late(tmp_path: Path) -> None:
    broken, fixed = broken_and_fixed(tmp_path, "late_oscillation")
    swings = [number(run, "val/loss", "std_of_last", 5) for run in (broken, fixed)]
    assert number(broken, "optim/lr", "last") == number(broken, "optim/lr", "first")
    assert number(fixed, "optim/lr", "last") < number(fixed, "optim/lr", "first")
    assert swings[0] > 3 * swings[1]
