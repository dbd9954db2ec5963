"""The peers of scripts/bench: they compute what optexp computes, and every family of contests runs in a tiny edition.

How fast anything is, is not tested here: a test must not depend on what else the machine does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "scripts")


# ---- sweeps


@pytest.fixture
def members() -> Callable[[str], list[Any]]:
    """Return a maker of two problems that differ in seed, learning rate and weight decay."""
    from benchmarks.programs.problems import problem

    settings = ((1e-2, 0.0, 0), (3e-3, 0.5, 1))
    return lambda model: [problem(model, *each, batch_size=4, steps=440) for each in settings]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("model", ["mlp", "resnet", "transformer"])
def test_members_of_torch_func_train_like_bare_loops(members: Callable[[str], list[Any]], model: str) -> None:
    from benchmarks.sweeps import together_difference

    assert together_difference(members(model)) < 1e-4


@pytest.mark.parametrize(("model", "left_out"), [("mlp", "_clip"), ("mlp", "_adamw"), ("resnet", "_sgd")])
def test_unequal_mathematics_of_torch_func_is_noticed(
    members: Callable[[str], list[Any]], monkeypatch: pytest.MonkeyPatch, model: str, left_out: str
) -> None:
    from benchmarks import sweeps

    monkeypatch.setattr(sweeps.Together, left_out, lambda *arguments: None)
    with pytest.raises(AssertionError, match=r"members trained with torch\.func differ from bare loops by"):
        sweeps.together_difference(members(model))


def test_unequal_losses_of_launchers_are_noticed() -> None:
    from benchmarks.sweeps import launcher_differences

    def losses(early: float = 2.0, last: float = 0.5, members: int = 2) -> Any:
        rows = {1: {"train/loss": 2.5}, 20: {"train/loss": 2.0}, 100: {"train/loss": 0.5, "val/loss": 0.6}}
        changed = {**rows, 20: {"train/loss": early}, 100: {"train/loss": last, "val/loss": 0.6}}
        return {member: changed if member else rows for member in range(members)}

    found = launcher_differences("MLP", {"optexp": losses(), "optexp, basic": losses(2.0002, 0.4)})
    expected = {"launchers up to step 20": 1e-4, "launchers at the end": 0.2}
    assert found == pytest.approx(expected, rel=1e-3)
    with pytest.raises(AssertionError, match=r"losses up to step 20 differ by 1\.0e-02"):
        launcher_differences("MLP", {"optexp": losses(), "optexp, basic": losses(early=1.98)})
    fewer = losses()
    del fewer[1][20]
    with pytest.raises(AssertionError, match="member 1 of 'optexp, basic' has other rows"):
        launcher_differences("MLP", {"optexp": losses(), "optexp, basic": fewer})


@pytest.mark.slow
def test_a_tiny_sweep_with_every_contestant() -> None:
    from benchmarks import sweeps
    from benchmarks.contest import Size, hold

    contest = sweeps.contests(Size(steps=10, quick=True))[0]
    outcome = hold(contest, 1, lambda text: None)
    assert contest.name == "sweep: MLP, AdamW, clip 1.0, 4 runs of 10 steps"
    assert list(outcome.costs) == [*sweeps.LAUNCHERS, sweeps.HYDRA, *sweeps.VMAP]
    assert list(outcome.differences) == ["first steps", "launchers up to step 20", "launchers at the end"]
    assert all(outcome.also(name)["peak MB"] > 100 for name in outcome.costs), "they all import torch"


@pytest.mark.slow
def test_the_hydra_peer_leaves_records_and_weights(tmp_path: Path) -> None:
    import torch
    from benchmarks.processes import run_python

    words = ["model=resnet", "steps=20", "lr=0.01", "weight_decay=1e-4", "seed=0,1", "hydra.sweep.dir=sweep"]
    run_python(["-m", "benchmarks.programs.hydra_sweep", "-m", *words], tmp_path)
    for number in range(2):
        saved = torch.load(tmp_path / "sweep" / str(number) / "last.pt")
        assert saved["optimizer"]["param_groups"][0]["weight_decay"] == 1e-4
        assert list((tmp_path / "sweep" / str(number)).glob("events.out.tfevents.*"))


# ---- child processes


INNER = "import sys; data = bytearray(b'1' * 100_000_000); print('ready', flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("descend", "least", "most"),
    [(f"subprocess.run([sys.executable, '-c', {INNER!r}])", 200e6, 300e6), ("fork()", 100e6, 180e6)],
    ids=["of its own", "shared with its parent"],
)
def test_the_memory_of_a_process_tree_counts_every_page_once(descend: str, least: float, most: float) -> None:
    from benchmarks.processes import memory_of, process_tree

    if not os.path.exists("/proc/self/smaps_rollup"):
        pytest.skip("this system does not tell")
    program = f"""if True:
        import os, subprocess, sys

        def fork():
            if os.fork() == 0:
                print("ready", flush=True)
                sys.stdin.read()
            else:
                os.wait()

        data = bytearray(b"1" * 100_000_000)
        {descend}"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        tree = process_tree(child.pid)
        assert len(tree) == 2
        assert sum(tree.values()) > 200e6
        assert least < memory_of(tree) < most
        assert process_tree(os.getpid()).keys() > tree.keys()
        assert child.stdin is not None
        child.stdin.close()


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    from benchmarks.processes import run_python

    with pytest.raises(RuntimeError, match=r"ended with status 3: .*one / two"):
        run_python(["-c", "print('one'); print('two'); raise SystemExit(3)"], tmp_path)
    assert run_python(["-c", "raise SystemExit(3)"], tmp_path, status=3).seconds > 0


# ---- start-up, overheads, scaling


def test_help_and_errors_are_timed() -> None:
    from benchmarks import startup

    for contest in (startup.help_contest(), startup.error_contest()):
        assert all(contestant.run().value > 0 for contestant in contest.contestants)


@pytest.mark.slow
def test_the_way_to_the_first_step_and_to_a_member_is_timed() -> None:
    from benchmarks import startup

    for contestant in startup.first_step_contest().contestants:
        assert 0 < contestant.run().value < 600
    for contestant in startup.composing_contest(6).contestants:
        assert abs(contestant.run().value) < 600_000


def test_overheads_and_scaling_run() -> None:
    from benchmarks import overhead, scaling
    from benchmarks.contest import Size

    size = Size(steps=10, quick=True)
    for contest in (*overhead.contests(size), *scaling.contests(size)):
        assert all(contestant.run().value > 0 for contestant in contest.contestants), contest.name


def test_a_group_has_the_runs_it_claims() -> None:
    from benchmarks.optexp_loop import Source, run_engine

    source = Source(["model=mlp", "engine.max_steps=20", "engine.log_every=1", "engine.checkpoint_every=null"])
    group = source.group(3)
    assert [training.seed for training in group] == [0, 1, 2]
    together, alone = run_engine(*group), run_engine(source.training())
    assert together.losses == pytest.approx(alone.losses, rel=1e-4)
