"""One YAML file adds an optimizer, a model or a data set, of a library or of the user's own package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import TINY, environ, here, in_a_process, only_run, runs_in
from own_package import write_own_package

from optexp.engine.checkpoint import weights_of

OWN = ("--config-dir", "configs", "trust=[mine]")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_own_package(tmp_path)
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("choice", "name", "key"),
    [
        ("nadam", "NAdam", "momentum_decay"),
        ("adafactor", "Adafactor", "beta2_decay"),
        ("lion", "Lion", "cautious"),
        ("ademamix", "AdEMAMix", "alpha"),
    ],
)
def test_an_optimizer_of_a_library_takes_one_file_and_no_code(folder: Path, choice: str, name: str, key: str) -> None:
    ended = here(folder, *TINY, "--config-dir", "configs", f"optimizer={choice}")
    assert (ended.status, ended.err) == (0, "")
    run = only_run(folder)
    assert f"optimizer {name} (" in ended.out
    assert run.choice("optimizer") == choice
    assert (run.metrics["optim/update_ratio"] or 0) > 0
    # and an argument that it does not take is an error, also where the constructor would swallow it
    refused = here(folder, *TINY, "--config-dir", "configs", f"optimizer={choice}", "+optimizer.dampening=0.9")
    assert refused.status == 2
    assert f"optimizer.dampening=0.9: {name} takes no 'dampening'" in refused.err
    assert len(runs_in(folder)) == 1


def test_the_package_of_the_user_is_found_beside_the_command(folder: Path) -> None:
    """Through the console script, because `python -m` puts the current folder on the import path by itself."""
    program = "import sys; sys.path.remove(''); sys.argv[0] = 'optexp'; from optexp.cli import main; sys.exit(main())"
    words = [*TINY, *OWN, "optimizer=signs"]
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=folder, env=environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert only_run(folder).config["optimizer"]["_target_"] == "mine.Signs"


def test_the_users_optimizer_is_the_one_that_steps(folder: Path) -> None:
    """Four steps of +-lr from weights that are equal, because the seed is."""
    base = [*TINY, *OWN, "schedule=constant"]
    for words in (["optimizer=signs", "optimizer.lr=0"], ["optimizer=signs", "optimizer.lr=0.25"]):
        assert here(folder, *base, *words).status == 0
    before, after = (weights_of(run.path)[1] for run in runs_in(folder))
    moves = torch.cat([((after[name] - before[name]) / 0.25).flatten() for name in before])
    assert set(moves.round(decimals=3).abs().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert moves.abs().max() > 0


def test_models_and_data_sets_of_the_user_are_configured_like_ours(folder: Path) -> None:
    words = ["model=wide", "dataset=few", "engine.max_steps=2", *OWN]
    ended = here(folder, *words, "model.width=5")
    assert (ended.status, ended.err) == (0, "")
    run = only_run(folder)
    assert run.info["model"]["parameters"] == 64 * 5 + 5 + 5 * 10 + 10
    assert run.info["data"]["sizes"]["train"] == 1797 - 2 * round(0.45 * 1797)
    refused = here(folder, *words, "model.width=wide")
    assert "model.width=wide: allowed is an integer" in refused.err
    refused = here(folder, *words, "+model.hieght=5")
    assert "model.hieght=5: Wide takes no 'hieght'" in refused.err
    assert len(runs_in(folder)) == 1


def test_nothing_of_the_user_is_imported_without_trust(folder: Path) -> None:
    ended = here(folder, *TINY, "--config-dir", "configs", "optimizer=signs")
    assert ended.status == 2
    assert "'mine' is not trusted" in ended.err
    assert "mine" not in sys.modules


def test_a_run_with_the_users_code_resumes_and_repeats_with_trust_only(folder: Path) -> None:
    assert here(folder, *TINY, *OWN, "optimizer=signs").status == 0
    path = str(only_run(folder).path.relative_to(folder))
    assert "'mine' is not trusted" in here(folder, "rerun", path).err
    repeated = here(folder, "rerun", path, "trust=[mine]")
    assert (repeated.status, repeated.err) == (0, "")
    assert "the same" in repeated.out


def test_a_bug_in_the_users_optimizer_fails_its_member_and_no_other(folder: Path) -> None:
    ended = in_a_process(folder, "-m", *TINY, *OWN, "optimizer=fails", "optimizer.lr=0.1,0.6,0.2")
    assert ended.status == 4
    assert ended.err == ""
    runs = runs_in(folder)
    assert [run.status for run in runs] == ["completed", "failed", "completed"]
    assert runs[1].info["reason"] == "ArithmeticError: my own mistake"
    assert "1-lr=0.6 (2 of 3)  failed" in ended.out
    assert "ArithmeticError: my own mistake" in ended.out
    assert "2 completed, 1 failed" in ended.out
    log = (runs[1].path / "optexp.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert 'raise ArithmeticError("my own mistake' in log
    assert not (runs[0].path / "optexp.log").exists()


def test_a_bug_in_the_users_optimizer_ends_a_run_with_a_line_and_a_log(folder: Path) -> None:
    ended = here(folder, *TINY, *OWN, "optimizer=fails", "optimizer.lr=0.6")
    assert ended.status == 1
    assert "Traceback" not in ended.out + ended.err
    assert "ArithmeticError: my own mistake" in ended.out
    run = only_run(folder)
    assert (run.status, run.info["reason"]) == ("failed", "ArithmeticError: my own mistake")
    assert "Traceback" in (run.path / "optexp.log").read_text()


def test_a_bug_that_shows_only_in_a_later_member_fails_that_member(folder: Path) -> None:
    sweep = ["-m", "hydra/launcher=basic", "seed=1,2,3"]
    ended = here(folder, *sweep, "model=not_made", "engine.max_steps=2", *OWN)
    assert ended.status == 4
    runs = runs_in(folder)
    assert [run.status for run in runs] == ["completed", "failed", "completed"]
    assert runs[1].info["reason"] == "KeyError: 'nobody expected this'"
    assert "Traceback" in (runs[1].path / "optexp.log").read_text()
    assert runs[1].config["seed"] == runs[1].info["seed"] == 2


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"], ["-m", "seed=1,2", "hydra/launcher=basic"]])
@pytest.mark.parametrize("call", ["sys.exit(7)", "sys.exit()", r"sys.exit('out of\nluck')"])
def test_a_model_that_exits_is_refused(folder: Path, sweep: list[str], call: str) -> None:
    (folder / "mine.py").write_text(f"import sys\nclass Quits:\n    def __init__(self):\n        {call}\n")
    (folder / "configs" / "model" / "quits.yaml").write_text("# quits\n_target_: mine.Quits\n")
    ended = here(folder, *sweep, *OWN, "model=quits")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"optexp: model: Quits called {call} while it was being made")
    assert ended.err.count("\n") == 1
    assert not (folder / "outputs").exists()


def test_a_module_that_exits_is_refused(folder: Path) -> None:
    (folder / "mine.py").write_text("raise SystemExit(0)\n")
    ended = here(folder, *TINY, *OWN, "optimizer=signs")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == "optexp: optimizer._target_=mine.Signs: cannot be imported (it called sys.exit(0))\n"


def test_a_forward_pass_that_exits_does_not_end_in_silence(folder: Path) -> None:
    code = "import sys\nfrom torch import nn\nclass Quits(nn.Module):\n    def forward(self, x):\n        sys.exit(0)\n"
    (folder / "mine.py").write_text(code)
    (folder / "configs" / "model" / "quits.yaml").write_text("# quits\n_target_: mine.Quits\n")
    ended = here(folder, *OWN, "model=quits")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "optexp: unexpected error: something called sys.exit(0)\n"
    assert not (folder / "outputs").exists()
