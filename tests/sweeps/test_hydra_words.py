"""Hydra's own settings in a sweep: honoured, left to Hydra and said so, or refused in one line; never ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import TINY, everything_in, here

PARAMS = "hydra.sweeper.params"


def dry(folder: Path, *words: str) -> list[str]:
    """Return what a dry run of a sweep prints."""
    ended = here(folder, "-m", *TINY, *words, "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    return ended.out.splitlines()


def refused(folder: Path, *words: str) -> str:
    """Return the one line with which a sweep is refused."""
    ended = here(folder, "-m", *TINY, *words)
    assert (ended.status, ended.out, everything_in(folder)) == (2, "", [])
    (line,) = ended.err.splitlines()
    return line


def test_the_mode_of_a_sweep_is_no_reason_to_leave_it_to_hydra(tmp_path: Path) -> None:
    lines = dry(tmp_path, "seed=0,1", "hydra.mode=MULTIRUN")
    assert lines[-1] == "2 members, nothing trained; 2 members fused"
    assert lines[1] == "ok: optexp model=mlp 'model.hidden=[8]' engine.max_steps=4 seed=1"  # the command of one run
    without_m = here(tmp_path, *TINY, "seed=0,1", "hydra.mode=MULTIRUN", "--dry-run")
    assert without_m.out.splitlines() == lines


def test_a_mode_that_contradicts_is_refused(tmp_path: Path) -> None:
    line = refused(tmp_path, "seed=0,1", "hydra.mode=RUN")
    assert line == "optexp: hydra.mode=RUN: contradicts -m; a sweep is MULTIRUN, so leave out one of the two"


@pytest.mark.parametrize(
    "words",
    [
        [f"{PARAMS}.seed=0,1"],
        [f"+{PARAMS}.seed='0,1'"],
        [f"++{PARAMS}.seed=range(2)"],
        [PARAMS + "={seed:'0,1'}"],
        [f"{PARAMS}.seed=7", f"{PARAMS}.optimizer.lr=9", f"{PARAMS}.seed=0,1", f"~{PARAMS}.optimizer.lr"],
        [f"{PARAMS}.optimizer.lr=9", f"~{PARAMS}", f"{PARAMS}.seed=0,1"],
    ],
)
def test_parameters_of_the_sweeper_are_swept(tmp_path: Path, words: list[str]) -> None:
    lines = dry(tmp_path, *words)
    assert [line.partition(" model=")[0] for line in lines[:-1]] == ["ok: optexp seed=0", "ok: optexp seed=1"]
    assert lines[-1] == "2 members, nothing trained; 2 members fused"


def test_parameters_of_the_sweeper_on_the_command_line_change_those_of_a_file(tmp_path: Path) -> None:
    grid = tmp_path / "mine" / "experiment" / "grid.yaml"
    grid.parent.mkdir(parents=True)
    grid.write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.2\n      seed: range(2)\n"
    )
    grid_words = ["--config-dir", "mine", "experiment=grid"]
    assert len(dry(tmp_path, *grid_words)) == 4 + 1
    assert len(dry(tmp_path, *grid_words, f"{PARAMS}.seed=0,1,2")) == 6 + 1
    assert len(dry(tmp_path, *grid_words, f"~{PARAMS}.seed")) == 2 + 1
    assert len(dry(tmp_path, *grid_words, f"{PARAMS}.seed=0,1,2", "hydra/launcher=basic")) == 6 + 1


def test_what_hydra_runs_has_the_parameters_of_the_sweeper_too(tmp_path: Path) -> None:
    ended = here(tmp_path, "-m", *TINY, f"{PARAMS}.seed=3,4", "hydra.mode=MULTIRUN", "hydra/launcher=basic")
    assert (ended.status, ended.err) == (0, "")
    assert "  by Hydra: hydra/launcher=basic\n" in ended.out
    assert sorted(path.parent.name for path in tmp_path.glob("outputs/sweeps/*/*/*/run.json")) == [
        "0-seed=3",
        "1-seed=4",
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([f"{PARAMS}.trust=[mine]"], f"{PARAMS}.trust=[mine]: allowed is trust=[…] on the command line only"),
        ([f"~{PARAMS}.seed"], f"~{PARAMS}.seed: there is no such key to drop; there are none"),
        ([f"{PARAMS}=3"], f"{PARAMS}=3: allowed are keys with values, {PARAMS}.seed=0,1"),
        ([f"{PARAMS}.sed=0,1"], "sed=0: no such key or group (did you mean 'seed'?)"),
        (
            ["hydra.launcher.group_size=2,4"],
            "hydra.launcher.group_size=2,4: is a setting of the sweep and not of a member; give it one value",
        ),
        (
            ["hydra/launcher=fused,basic"],
            "hydra/launcher=fused,basic: is a setting of the sweep and not of a member; give it one value",
        ),
        (["hydra.sweeper.max_batch_size=1"], "hydra.sweeper.max_batch_size=1: all members are given to the launcher"),
        (
            ["hydra.launcher.n_jobs=2"],
            "hydra.launcher.n_jobs=2: hydra.launcher takes no 'n_jobs'; it takes group_size, workers",
        ),
        (
            ["+hydra.launcher.n_jobs=2"],
            "hydra.launcher.n_jobs=2: hydra/launcher=fused takes no 'n_jobs'; it takes group_size, workers",
        ),
        (
            ["hydra.launcher.workers=2", "hydra.job.chdir=true"],
            "hydra.launcher.workers=2: hydra.job.chdir=true is for members that Hydra runs; leave out one of the two",
        ),
    ],
)
def test_what_nobody_would_read_is_refused(tmp_path: Path, words: list[str], line: str) -> None:
    assert refused(tmp_path, "optimizer.lr=0.1,0.2", *words).startswith(f"optexp: {line}")


def test_a_sweeper_of_somebody_else_gets_its_parameters_from_hydra_only(tmp_path: Path) -> None:
    foreign = "hydra.sweeper._target_=hydra_plugins.mine.Mine"
    line = refused(tmp_path, foreign, f"{PARAMS}.seed=0,1")
    assert line.startswith(f"optexp: {PARAMS}.seed=0,1: hydra_plugins.mine.Mine takes it from a file or as one quoted")
    assert "nothing trained; by Hydra: hydra/sweeper is not Hydra's own" in dry(tmp_path, foreign)[-1]


def test_joblib_is_not_said_to_run_one_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    lines = dry(tmp_path, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert lines[-1] == "2 members, nothing trained; by Hydra: hydra/launcher=joblib"


@pytest.mark.parametrize(
    "word", [f"+{PARAMS}.seed=3", f"{PARAMS}.seed=3", f"++{PARAMS}.x=3", f"{PARAMS}={{seed:3}}", f"~{PARAMS}"]
)
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--cfg", "hydra"]])
def test_parameters_of_the_sweeper_without_a_sweep_are_refused(tmp_path: Path, word: str, more: list[str]) -> None:
    ended = here(tmp_path, *TINY, word, *more)
    assert (ended.status, ended.out, everything_in(tmp_path)) == (2, "", [])
    assert ended.err == f"optexp: {word}: is a setting of a sweep; add -m\n"
