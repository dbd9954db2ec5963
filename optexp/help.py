"""The help page: what can be chosen, read from the config files themselves, and how to say it."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from optexp.errors import BadInput

EXAMPLES = (
    ("optexp", "the default run: a small ResNet on handwritten digits, a few seconds"),
    ("optexp optimizer=adamw optimizer.lr=3e-3 schedule.warmup_fraction=0.1", "choose from a group, set values"),
    ("optexp experiment=exp2_sgd_B32", "a named failure: SGD that does not train"),
    ("optexp -m optimizer.lr=1e-3,1e-2,1e-1 optimizer.weight_decay=0,1e-4,1e-2", "a sweep: nine runs"),
    ("optexp study=which_fix", "a question answered by experiment: which correction matters most?"),
    ("optexp model=transformer dataset=pydocs optimizer=adamw", "a language model on Python's documentation"),
)

FLAGS = (
    ("-m, --multirun", "run one job per combination of comma-separated values"),
    ("--dry-run", "compose and check every job, train nothing"),
    ("--cfg job", "print the composed configuration and stop (--resolve fills in references)"),
    ("--config-dir DIR", "add your own config groups"),
    ("--info [defaults-tree]", "how the configuration is put together"),
    ("--hydra-help", "Hydra's own options"),
    ("--version", "print the version"),
)


def print_help(verbs: Mapping[str, str], config_dir: str | None = None) -> None:
    """Print the help page; `config_dir` adds the groups of the user's own folder."""
    folders = [shipped_folder()]
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise BadInput(f"--config-dir {config_dir}: no such folder")
        folders.append(Path(config_dir))
    print("optexp: an experiment runner for optimizers that says why a run failed\n")
    print("  optexp key=value ...     start a run; -m starts a sweep")
    print("  optexp VERB ...          read or continue run directories\n")
    print("Examples")
    for command, meaning in EXAMPLES:
        print(f"  {command}\n      {meaning}")
    print("\nGroups: choose with group=choice, change a value with group.key=value")
    print("  Every key of a group: optexp --cfg job --package engine (or model, ...)")
    print("  What the keys mean: comments in its files, such as conf/engine/default.yaml")
    for group, choices in groups(folders).items():
        print(f"\n  {group}")
        _print_columns(choices.items(), indent=4)
    print("\nVerbs: optexp VERB --help says more")
    _print_columns(verbs.items())
    print("\nFlags: they may stand anywhere")
    _print_columns(FLAGS)
    print('\nTab completion: eval "$(optexp -sc install=bash)" (or zsh, fish)')
    print(
        "Exit status: 0 done, 1 unexpected error, 2 bad input, 3 diverged, 4 members failed, 5 storage,\n"
        "6 checks of an audit failed, 130 interrupted"
    )


def _print_columns(rows: Iterable[tuple[str, str]], indent: int = 2) -> None:
    """Print names and meanings; on a terminal, long meanings are wrapped below themselves."""
    pairs = list(rows)
    names = max(len(name) for name, _ in pairs)
    room = shutil.get_terminal_size().columns - indent - names - 2 if sys.stdout.isatty() else math.inf
    for name, meaning in pairs:
        lines = textwrap.wrap(meaning, int(max(room, 30))) if len(meaning) > room else [meaning]
        print(f"{'':{indent}}{name:<{names}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            print(f"{'':{indent + names + 2}}{line}")


def shipped_folder() -> Path:
    """Return the folder of the shipped config groups: `optexp.conf` when installed, `conf/` in a plain checkout."""
    spec = importlib.util.find_spec("optexp.conf")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[1] / "conf"


def groups(folders: list[Path]) -> dict[str, dict[str, str]]:
    """Return {group: {choice: its first comment line}} over config folders, later ones adding to earlier ones."""
    order = ["model", "dataset", "optimizer", "schedule", "engine", "task", "experiment", "study"]
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*/*.yaml")):
            if path.parent.name != "hydra":
                found.setdefault(path.parent.name, {})[path.stem] = _first_comment(path)
    known = [group for group in order if group in found]
    return {group: found[group] for group in [*known, *sorted(set(found) - set(known))]}


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").rstrip()
    return ""
