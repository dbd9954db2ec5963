"""A run directory tells what happened, whatever happened."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from optexp.assemble import Training, assemble, evaluation_batch
from optexp.config.compose import Composer
from optexp.engine.checkpoint import Checkpoints
from optexp.errors import BadInput, Exit, StorageError
from optexp.records.reading import read_run
from optexp.run import Result, execute
from optexp.tasks import check_composed

SMALL = ("engine.max_steps=30", "engine.eval_every=10")


def assembled(*words: str) -> Training:
    model = () if any(word.startswith("model") for word in words) else ("model=mlp", "model.hidden=[16]")
    composed = Composer().compose([*SMALL, *model, *words])
    return assemble(composed.config, check_composed(composed), composed.choices)


def executed(path: Path, *words: str) -> Result:
    path.mkdir(exist_ok=True)
    return execute(assembled(*words), path, ["optexp", *words], list(words))


def test_a_completed_run_records_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = executed(tmp_path / "run", "engine.evaluate_test=true", "optimizer.lr=0.1")
    assert result.status == "completed"
    assert result.exit_status == Exit.DONE
    run = read_run(tmp_path / "run")
    info = run.info
    assert (info["status"], info["last_step"], info["total_steps"], info["seed"]) == ("completed", 30, 30, 0)
    assert info["command"] == "optexp engine.evaluate_test=true optimizer.lr=0.1"
    assert info["choices"]["model"] == "mlp"
    assert info["environment"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert info["data"]["sizes"] == {"train": 1257, "val": 270, "test": 270}
    # 64·16 + 16 + 16·10 + 10 parameters; 2 FLOPs per multiply-add of the two matrices
    assert info["model"] == {"parameters": 1210, "trainable": 1210, "flops_per_sample": 2 * (64 * 16 + 16 * 10)}
    assert any(
        "weight decay 0.0005 on 2 tensors; engine.decay_norm_and_bias=false exempts 2 others" in note
        for note in info["notes"]
    )
    assert result.objective == info["best"]["value"] == min(row["val/loss"] for row in run.rows if "val/loss" in row)
    assert run.config["optimizer"]["lr"] == 0.1
    assert set(run.metrics) >= {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "test/loss",
        "test/accuracy",
    }
    printed = capsys.readouterr().out
    assert "completed  30 of 30 steps" in printed
    assert "tensorboard" in printed
    assert "weight decay 0.0005" in printed


def test_two_runs_of_one_config_are_bitwise_equal_and_seeds_differ(tmp_path: Path) -> None:
    weights = {}
    for name, words in (("a", ()), ("b", ()), ("c", ("seed=1",))):
        executed(tmp_path / name, *words)
        loaded = Checkpoints(tmp_path / name / "checkpoints").load("last")
        assert loaded is not None
        weights[name] = loaded[1]["program"]["model"]
    assert all(torch.equal(value, weights["b"][key]) for key, value in weights["a"].items())
    assert not any(torch.equal(value, weights["c"][key]) for key, value in weights["a"].items() if value.ndim > 1)
    rows = [
        [{k: v for k, v in row.items() if not k.startswith("time")} for row in read_run(tmp_path / name).rows]
        for name in ("a", "b")
    ]
    assert rows[0] == rows[1]


def test_divergence_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = executed(tmp_path / "run", "optimizer.lr=1e20")
    assert result.status == "diverged"
    assert result.exit_status == Exit.DIVERGED
    assert result.objective == math.inf
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "diverged"
    assert "at step" in info["reason"]
    assert "the update was not applied" in capsys.readouterr().out


def test_a_failure_in_the_users_code_is_recorded_and_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training = assembled()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the optimizer is broken\nwith details")

    monkeypatch.setattr(training.program, "apply_update", broken)
    path = tmp_path / "run"
    path.mkdir()
    result = execute(training, path, ["optexp"])
    assert (result.status, result.exit_status) == ("failed", Exit.UNEXPECTED)
    assert read_run(path).info["reason"] == "RuntimeError: the optimizer is broken"
    assert "Traceback" in caplog.text
    assert "with details" in caplog.text


def test_a_disk_that_fails_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageError("cannot write the checkpoint: No space left on device")

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        executed(tmp_path / "run")
    assert read_run(tmp_path / "run").status == "failed"


def test_a_directory_holds_one_run_only(tmp_path: Path) -> None:
    executed(tmp_path / "run")
    with pytest.raises(BadInput, match="already holds a run"):
        executed(tmp_path / "run")


def test_initial_weights_come_from_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    executed(tmp_path / "first")
    loaded = Checkpoints(tmp_path / "first" / "checkpoints").load("best")
    assert loaded is not None
    training = assembled(f"engine.init_from={tmp_path / 'first'}")
    for name, value in training.model.state_dict().items():
        assert torch.equal(value, loaded[1]["program"]["model"][name])
    assert any("4 tensors taken, 0 unused" in note for note in training.notes)
    wider = assembled(f"engine.init_from={tmp_path / 'first'}", "model=mlp", "model.hidden=[16,12]")
    assert any("2 tensors taken, 2 unused, 4 left as initialized" in note for note in wider.notes)
    with pytest.raises(BadInput, match=r"engine\.init_from=.*nowhere: no checkpoint there"):
        assembled(f"engine.init_from={tmp_path / 'nowhere'}")
    with pytest.raises(BadInput, match="no tensor of it matches"):
        assembled(f"engine.init_from={tmp_path / 'first'}", "model=linear")


def test_resume_through_the_directory_equals_the_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed between checkpoints: rows and events after the last checkpoint are written anew."""
    words = ("engine.checkpoint_every=8", "engine.log_every=3")
    executed(tmp_path / "straight", *words)
    training, path = assembled(*words), tmp_path / "broken"
    path.mkdir()
    step = training.program.step

    def dies(number: int, *arguments: Any) -> bool:
        if number == 21:
            raise SystemExit("killed")
        return step(number, *arguments)

    monkeypatch.setattr(training.program, "step", dies)
    assert execute(training, path, ["optexp"]).status == "failed"
    assert read_run(path).rows[-1]["step"] == 20
    result = execute(assembled(*words), path, ["optexp", "resume"], resume=True)
    assert result.status == "completed"
    straight, resumed = read_run(tmp_path / "straight"), read_run(path)
    assert resumed.info["first_step"] == 16
    assert resumed.info["resumed"] == 1

    def comparable(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if not key.startswith("time")} for row in rows]

    assert comparable(resumed.rows) == comparable(straight.rows)
    ends = [Checkpoints(p / "checkpoints").load("last") for p in (tmp_path / "straight", path)]
    assert ends[0] is not None
    assert ends[1] is not None
    first, second = (end[1]["program"]["model"] for end in ends if end is not None)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_resume_uses_the_previous_checkpoint_when_the_last_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    executed(path, "engine.checkpoint_every=10")
    manifest = json.loads((path / "checkpoints" / "last.json").read_text())
    data = path / "checkpoints" / manifest["file"]
    data.write_bytes(data.read_bytes()[:-1])
    capsys.readouterr()
    result = execute(assembled("engine.checkpoint_every=10"), path, ["optexp", "resume"], resume=True)
    assert result.status == "completed"
    assert read_run(path).info["first_step"] == 20
    assert "is damaged" in capsys.readouterr().out


def test_a_resume_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    executed(path, "optimizer.lr=1e20")
    executed(tmp_path / "other")
    for file in (tmp_path / "other" / "checkpoints").iterdir():
        (path / "checkpoints").mkdir(exist_ok=True)
        (path / "checkpoints" / file.name).write_bytes(file.read_bytes()[:-9])
    before = (path / "run.json").read_bytes()
    with pytest.raises(BadInput, match="no intact one"):
        execute(assembled(), path, ["optexp", "resume"], resume=True)
    assert (path / "run.json").read_bytes() == before


def test_a_torn_line_of_bytes_does_not_stop_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "run"
    executed(path, "engine.checkpoint_every=8")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe{")
    result = execute(assembled("engine.checkpoint_every=8"), path, ["optexp", "resume"], resume=True)
    assert result.status == "completed"


def test_files_are_recorded_by_absolute_path_and_initial_weights_are_not_needed_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    executed(tmp_path / "first")
    training = assembled("engine.init_from=first")
    assert training.config["engine"]["init_from"] == str(tmp_path / "first")
    composed = Composer().compose([*SMALL, "model=mlp", "engine.init_from=gone"])
    engine = check_composed(composed)
    with pytest.raises(BadInput, match="no checkpoint there"):
        assemble(composed.config, engine, composed.choices)
    assert assemble(composed.config, engine, composed.choices, resuming=True).plan.total_steps == 30


def test_evaluation_batches_are_bounded_by_their_outputs() -> None:
    small = assembled()
    assert evaluation_batch(small.dataset, 32) == 1024
    tokens = dataclasses.replace(small.dataset, kind="tokens", input_shape=(1024,), num_outputs=50257)
    assert evaluation_batch(tokens, 4) == 4
    assert evaluation_batch(tokens, 1) == 1


def test_full_batch_gradient_descent(tmp_path: Path) -> None:
    training = assembled("dataset.batch_size=full")
    assert training.plan.samples_per_step == 1257
    assert training.plan.steps_per_epoch == 1
    ids = training.program.batches.sample_ids(0)
    assert sorted(ids.tolist()) == list(range(1257))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dataset.batch_size=1258",), "dataset.batch_size=1258: digits has 1257 training samples"),
        (("engine.accumulate=33",), "engine.accumulate=33: a batch of 32 cannot be split"),
        (("schedule.warmup_steps=31",), "schedule.warmup_steps=31"),
        (("model=transformer",), "model=transformer and dataset=digits: the model reads tokens"),
        (("model=linear", "model._target_=torch.nn.Linear"), "model.in_features must be set"),
        (("dataset=line", "model=linear", "engine.label_smoothing=0.1"), "engine.label_smoothing=0.1: dataset 'line'"),
        (("schedule=plateau", "schedule.mode=max"), "schedule.mode=max: the metric is val/loss"),
        (("optimizer._target_=torch.nn.Linear",), "optimizer._target_=torch.nn.Linear: is not a torch.optim.Optimizer"),
        (("dataset._target_=torch.load",), "dataset._target_=torch.load: is not a dataset"),
        (("schedule._target_=torch.optim.lr_scheduler.StepLR",), "is not an optexp.schedules.Schedule"),
        (("model=linear", "model._target_=torch.hub.load"), "model._target_=torch.hub.load: is not a model"),
    ],
)
def test_what_cannot_start_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        assembled(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
