"""Members that take the process of one of Hydra's launchers along: each costs the sweep itself, and nobody else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Ended, here, in_a_process, start

from optexp.config.launch import launch_sweep
from optexp.records.process import is_alive
from optexp.records.reading import find_runs, read_run
from optexp.sweeps import multirun
from optexp.sweeps.children import can_fork

MINE = """
import os, signal, sys, torch

class Dies(torch.optim.SGD):
    '''Ends its process in its third step, when the learning rate is above 0.5.'''

    def __init__(self, params, lr=0.1, how="os._exit(0)"):
        super().__init__(params, lr=lr)
        self.how, self.steps = how if lr > 0.5 else None, 0

    def step(self, closure=None):
        self.steps += 1
        if self.how and self.steps == 3:
            exec(self.how)
        return super().step(closure)
"""

pytestmark = pytest.mark.skipif(not can_fork(), reason="children are forked on Linux only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "configs" / "optimizer").mkdir(parents=True)
    (tmp_path / "configs" / "optimizer" / "dies.yaml").write_text("# dies\n_target_: mine.Dies\nlr: 0.1\n")
    return tmp_path


def words(launcher: str, lrs: str, how: str) -> list[str]:
    deadly = ["--config-dir", "configs", "trust=[mine]", "optimizer=dies", f"+optimizer.how='{how}'"]
    return ["-m", *TINY, f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", f"optimizer.lr={lrs}", *deadly]


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sweep" / "sweep.json").read_text())
    return found


def statuses(folder: Path) -> list[str]:
    return [member["status"] for member in record(folder)["members"]]


def assert_is_finished(folder: Path, ended: Ended) -> None:
    """The sweep has come to its own end, with everything that belongs to one."""
    assert ended.status == 4, ended
    assert record(folder)["status"] == "completed"
    assert all((folder / "sweep" / name).stat().st_size for name in ("sweep.csv", "report.html"))
    for member in record(folder)["members"]:
        run = read_run(folder / "sweep" / member["directory"])
        assert (run.info["status"], run.info["reason"]) == (member["status"], member["reason"])
        assert run.info["overrides"] == [
            word for word in member["overrides"] if not word.lstrip("+").startswith("hydra")
        ]


@pytest.mark.parametrize(
    "ends",
    [
        {
            "os._exit(0)": "the process ended with exit status 0",
            "raise MemoryError(1)": "MemoryError: 1",
            "os.kill(os.getpid(), signal.SIGKILL)": "the process was ended by SIGKILL",
        },
        {
            "sys.exit(0)": "SystemExit: 0",
            "os.kill(os.getpid(), signal.SIGSEGV)": "the process was ended by SIGSEGV",
            "os._exit(3)": "the process ended with exit status 3",
        },
    ],
)
def test_basic_loses_the_members_that_died(folder: Path, ends: dict[str, str]) -> None:
    """The first to end the process ends the launcher, too; what ends the process later ends a child process."""
    ways = ",".join(f"'{how}'" for how in ["1", *ends, "2"])
    ended = in_a_process(folder, *words("basic", "0.9", "1")[:-1], f"+optimizer.how={ways}")
    assert_is_finished(folder, ended)
    assert statuses(folder) == ["completed", *["failed"] * 3, "completed"]
    assert [member["reason"] for member in record(folder)["members"]] == [None, *ends.values(), None]
    assert "2 completed, 3 failed" in ended.out
    assert ended.out.count(" of 5)  failed  ") == 3


def test_the_members_after_a_lost_one_have_hydras_settings(folder: Path) -> None:
    settings = ["hydra.job.chdir=true", "+hydra.job.env_set.OPTEXP_TEST=1", "hydra.output_subdir=.mine"]
    how = 'open("trace","w").write(os.environ["OPTEXP_TEST"]); os._exit(5)'
    ended = in_a_process(folder, *words("basic", "0.9,0.1,0.8", how), *settings)
    assert_is_finished(folder, ended)
    for number, lr in enumerate((0.9, 0.1, 0.8)):
        path = folder / "sweep" / f"{number}-lr={lr}"
        assert f"num: {number}\n" in (path / ".mine" / "hydra.yaml").read_text()
        assert (path / "trace").exists() == (lr > 0.5)


def test_a_member_that_dies_before_its_record_begins(folder: Path) -> None:
    source = (folder / "mine.py").read_text()
    born_dead = "        if self.how and os.path.exists('sweep'):\n            os._exit(9)\n"
    (folder / "mine.py").write_text(source.replace("\n    def step", born_dead + "\n    def step"))
    ended = in_a_process(folder, *words("basic", "0.1,0.9,0.2", "pass"))
    assert_is_finished(folder, ended)
    assert statuses(folder) == ["completed", "failed", "completed"]
    assert record(folder)["members"][1]["reason"] == "the process ended with exit status 9"


def test_joblib_loses_the_member_that_died(folder: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    how = "os.kill(os.getpid(), signal.SIGKILL)"
    ended = in_a_process(folder, *words("joblib", "0.1,0.2,0.9,0.3,0.4,0.05", how), "hydra.launcher.n_jobs=2")
    assert_is_finished(folder, ended)
    joblibs = ("resource_tracker", "warnings.warn(")  # about what its killed worker has left behind, now and then
    assert [line for line in ended.err.splitlines() if not any(word in line for word in joblibs)] == []
    assert statuses(folder) == ["completed", "completed", "failed", "completed", "completed", "completed"]
    assert " go on one by one: TerminatedWorkerError: " in ended.out


@pytest.mark.parametrize("forks", [True, False])
def test_what_a_launcher_raises_on_the_way_costs_no_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: bool
) -> None:
    """Also where no process can be forked."""

    def breaking(composer: Any, words: Any, jobs: Any, member: Any) -> None:
        launch_sweep(composer, words, jobs[:1], member)
        raise ConnectionError("planted")

    monkeypatch.setattr(multirun, "launch_sweep", breaking)
    monkeypatch.setattr(multirun, "can_fork", lambda: forks)
    ended = here(tmp_path, "-m", *TINY, "seed=0,1,2", "hydra.sweep.dir=sweep", "hydra/launcher=basic")
    assert (ended.status, ended.err) == (0, "")
    assert statuses(tmp_path) == ["completed"] * 3
    assert "2 members go on one by one: ConnectionError: planted\n" in ended.out
    assert len({json.dumps(run.info["process"]) for run in find_runs(tmp_path)}) == (3 if forks else 1)


def test_a_launcher_that_launches_nothing_is_not_replaced(folder: Path) -> None:
    """What was meant for a cluster must not be trained here."""
    plugin = folder / "hydra_plugins" / "broken" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(
        "from hydra._internal.core_plugins.basic_launcher import BasicLauncher\n"
        "class Broken(BasicLauncher):\n"
        "    def launch(self, *given, **named):\n"
        "        raise ConnectionError('no cluster')\n"
    )
    target = "hydra.launcher._target_=hydra_plugins.broken.Broken"
    ended = in_a_process(folder, *words("basic", "0.1,0.2", "pass"), target)
    assert ended.status == 1
    assert ended.err.endswith("optexp: unexpected error: ConnectionError: no cluster\n")
    assert "Traceback" in ended.err
    assert statuses(folder) == ["not started", "not started"]
    assert record(folder)["status"] == "failed"


def test_a_sweeper_of_somebody_else_that_is_lost_leaves_what_came_out(folder: Path) -> None:
    plugin = folder / "hydra_plugins" / "other" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(
        "from hydra._internal.core_plugins.basic_sweeper import BasicSweeper\nclass Other(BasicSweeper):\n    pass\n"
    )
    target = "hydra.sweeper._target_=hydra_plugins.other.Other"
    ended = in_a_process(folder, *words("basic", "0.1,0.9,0.2", "os._exit(0)"), target)
    assert ended.status == 4
    assert "the sweeper is lost with its member: the process ended with exit status 0\n" in ended.out
    assert statuses(folder) == ["completed", "failed"]
    assert record(folder)["status"] == "interrupted"
    assert (folder / "sweep" / "report.html").exists()


@pytest.mark.parametrize(
    ("launcher", "number", "status"),
    [("basic", signal.SIGINT, 130), ("basic", signal.SIGTERM, 143), ("joblib", signal.SIGTERM, 143)],
)
def test_a_signal_ends_the_sweep_in_order(tmp_path: Path, launcher: str, number: signal.Signals, status: int) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    long = ("model=mlp", "model.hidden=[8]", "engine.max_steps=1500", "engine.checkpoint_every=50")
    process = start(tmp_path, "-m", *long, "seed=0,1", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep")
    wait_for(tmp_path, "sweep/0-*/checkpoints/last.json")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    assert record(tmp_path)["status"] == statuses(tmp_path)[0] == "interrupted"
    assert (tmp_path / "sweep" / "report.html").exists()
    assert "1 interrupted" in out or "2 interrupted" in out
    for file in (tmp_path / "sweep").glob("*/run.json"):
        assert is_alive(json.loads(file.read_text())["process"]) is False
    assert here(tmp_path, "resume", "sweep").status == 0
    assert statuses(tmp_path) == ["completed"] * 2


def wait_for(folder: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in folder.glob(pattern):
            return path
        time.sleep(0.02)
    raise AssertionError(f"no {pattern}")


@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_no_workers(tmp_path: Path) -> None:
    """Its workers are processes of their own: left alone they would train what others train, too."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    long = ("model=mlp", "model.hidden=[8]", "engine.max_steps=1500", "engine.checkpoint_every=50")
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = start(tmp_path, "-m", *long, "seed=0,1,2,3", *joblib, "hydra.sweep.dir=sweep")
    workers = []
    for number in (0, 1):
        path = wait_for(tmp_path, f"sweep/{number}-*/checkpoints/last.json").parents[1]
        workers.append(json.loads((path / "run.json").read_text())["process"])
    launcher = parent_of(workers[0]["pid"])
    os.kill(launcher, signal.SIGKILL)
    process.communicate(timeout=120)
    for left in Path("/dev/shm").glob(f"*loky-{launcher}-*"):  # what nobody has the time to give back
        left.unlink()
    for left in Path("/dev/shm").glob(f"joblib_memmapping_folder_{launcher}_*"):
        shutil.rmtree(left)
    assert process.returncode == 0
    assert statuses(tmp_path) == ["completed"] * 4
    assert [is_alive(worker) for worker in workers] == [False, False]
    for file in (tmp_path / "sweep").glob("*/run.json"):
        steps = [row["step"] for row in read_run(file.parent).rows if "train/loss" in row]
        assert steps == sorted(set(steps))


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
