"""What Hydra's users expect of a Hydra application: --cfg, --info, completion, launchers, plain pipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, environ, everything_in, here, in_a_process, runs_in
from omegaconf import OmegaConf

from optexp.config.compose import Composer


def shown(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def test_cfg_shows_the_configuration_of_the_run(tmp_path: Path) -> None:
    words = ["model=mlp", "optimizer.lr=1e-3", "name=lr=${optimizer.lr}"]
    words[2] = "name=a${seed}"
    ended = in_a_process(tmp_path, "--cfg", "job", *words)
    assert (ended.status, ended.err) == (0, "")
    assert shown(ended.out)["name"] == "a${seed}"
    resolved = here(tmp_path, *words, "--cfg", "job", "--resolve")
    assert shown(resolved.out) == Composer().compose(words).config
    assert everything_in(tmp_path) == []


def test_cfg_shows_a_part_of_it(tmp_path: Path) -> None:
    out = here(tmp_path, "model=mlp", "-c", "job", "-p", "model").out
    assert shown(out) == {"_target_": "optexp.models.mlp.MLP", "hidden": [128, 128]}
    assert "dir: ${output_dir}/runs/" in here(tmp_path, "--cfg", "hydra").out


def test_info_shows_how_the_configuration_is_put_together(tmp_path: Path) -> None:
    ended = here(tmp_path, "optimizer=adam", "--info", "defaults-tree")
    assert ended.status == 0
    lines = [line.strip() for line in ended.out.splitlines()]
    assert "optimizer: adam" in lines
    assert "model: resnet" in lines
    assert "Hydra" in here(tmp_path, "--info").out
    assert "== Flags ==" in here(tmp_path, "--hydra-help").out
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("optexp optimizer=adag", {"optimizer=adagrad"}),
        ("optexp optimizer=rm", {"optimizer=rmsprop"}),
        ("optexp model=mlp schedule=c", {"schedule=constant", "schedule=cosine", "schedule=cosine_restarts"}),
        ("optexp -m optim", {"optimizer=", "optimizer."}),
        ("optexp model=mlp engine.max", {"engine.max_steps="}),
        ("optexp dataset.ba", {"dataset.batch_size="}),
    ],
)
def test_words_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, completions: set[str]) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    ended = here(tmp_path, "-sc", "query=bash")
    assert (ended.status, ended.err) == (0, "")
    assert set(ended.out.split()) == completions


def test_completion_is_installed_by_the_documented_command(tmp_path: Path) -> None:
    """Bash itself must accept the script, and ask the command it names."""
    script = here(tmp_path, "-sc", "install=bash").out
    assert script.rstrip().endswith("optexp")
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_reader_who_leaves_early_ends_it_quietly(tmp_path: Path) -> None:
    for words in ("--help", "--info", "--cfg all"):
        command = f"{sys.executable} -m optexp {words} | head -n 1"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            env=environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout.count("\n") == 1


def test_hydras_own_directory_and_variables(tmp_path: Path) -> None:
    words = ["hydra.run.dir=mine/${seed}", "+hydra.job.env_set.OPTEXP_TEST=1", "seed=6"]
    assert here(tmp_path, *TINY, *words).status == 0
    assert (tmp_path / "mine" / "6" / ".hydra" / "overrides.yaml").exists()
    assert OmegaConf.load(tmp_path / "mine/6/.hydra/config.yaml").seed == 6
    sweep = ["-m", "hydra.sweep.dir=sweep", "seed=1,2"]
    assert here(tmp_path, *TINY, *sweep).status == 0
    assert sorted(path.name for path in (tmp_path / "sweep").glob("*/run.json")) == ["run.json", "run.json"]


def test_a_job_may_change_the_folder(tmp_path: Path) -> None:
    for words in ([], ["-m", "seed=1,2"]):
        ended = here(tmp_path, *TINY, *words, "hydra.job.chdir=true")
        assert (ended.status, ended.err) == (0, "")
    assert [run.path.relative_to(tmp_path).parts[1] for run in runs_in(tmp_path)] == ["runs", "sweeps", "sweeps"]


def test_members_run_in_other_processes_with_joblib(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "optimizer.lr=0.1,1e30"]
    ended = in_a_process(tmp_path, *TINY, *words)
    assert ended.status == 0, ended.err
    assert [run.status for run in sorted(runs_in(tmp_path), key=lambda run: run.name)] == ["completed", "diverged"]


BACKWARDS = """
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

class Backwards(BasicSweeper):
    '''Asks for the last combination first, and says what it was told about each.'''

    def sweep(self, arguments):
        split = self.split_arguments
        self.split_arguments = lambda *given: [list(reversed(batch)) for batch in split(*given)]
        results = super().sweep(arguments)
        print("objectives", *[job.return_value for batch in results for job in batch])
"""


def test_a_sweeper_of_somebody_else_gets_the_best_validation_loss(tmp_path: Path) -> None:
    plugin = tmp_path / "hydra_plugins" / "backwards" / "__init__.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(BACKWARDS)
    words = ["-m", "hydra.sweeper._target_=hydra_plugins.backwards.Backwards", "optimizer.lr=0.1,0.2,1e30,-1"]
    ended = in_a_process(tmp_path, *TINY, *words)
    assert (ended.status, ended.err) == (4, "")
    runs = {run.config["optimizer"]["lr"]: run for run in runs_in(tmp_path)}
    assert list(runs) == [-1, 1e30, 0.2, 0.1]
    assert [run.status for run in runs.values()] == ["failed", "diverged", "completed", "completed"]
    assert runs[-1].info["reason"] == "optimizer.lr=-1: allowed is a finite number ≥ 0"
    (told,) = (line.split()[1:] for line in ended.out.splitlines() if line.startswith("objectives"))
    best = [runs[lr].info["best"]["value"] for lr in (0.2, 0.1)]
    assert [float(value) for value in told] == [float("inf"), float("inf"), *best]
    assert "2 completed" in ended.out
