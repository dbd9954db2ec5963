"""The two configurations that are compared, each named by an experiment or a run directory, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optexp.attribution.words import same, words_of_run, words_towards
from optexp.config.check import GROUPS_OF_A_TRAINING
from optexp.config.compose import Composed, Composer
from optexp.errors import BadInput, listed, nearest
from optexp.override_words import key_of
from optexp.records.reading import flat, read_run

MOST_KEYS = 12
"""More than these are no repair but another experiment, and could not be sampled with a useful error."""

CHANGE_NOTHING = (
    *("dataset.root", "dataset.download", "engine.threads", "engine.log_every", "engine.checkpoint_every"),
    *("engine.probe_every", "engine.evaluate_test", "engine.compile", "engine.cuda_graph", "engine.channels_last"),
    *("optimizer.foreach", "optimizer.fused", "optimizer.capturable", "optimizer.differentiable"),
)
"""Keys of the groups that say where data lie, what is written and how fast it goes: but for rounding, the result is
the same."""

_STEPS, _EPOCHS = "engine.max_steps", "engine.epochs"
"""What says when training ends; the first, where it is set, goes before the second."""


class _Absent:
    def __str__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""Stands for the value of a key that a side does not have (null is a value)."""


@dataclass(frozen=True)
class Side:
    """One configuration: as the user named it, the override words that compose it, and what they compose."""

    named: str
    words: list[str]
    composed: Composed


@dataclass(frozen=True)
class Difference:
    """A key that differs: dotted, or a whole group where both sides chose another kind (`optimizer`).

    `name` is as short as it can be among the differing ones. `failing` and `working` are the values, the choices of a
    group, or `ABSENT` where a side lacks the key.
    """

    key: str
    name: str
    failing: Any
    working: Any

    @property
    def is_group(self) -> bool:
        """Whether the whole group is exchanged."""
        return self.key in GROUPS_OF_A_TRAINING

    def at(self, level: int) -> Any:
        """Return the value at level 0, failing, or 1, working, as records and tables have it."""
        value = self.working if level else self.failing
        return str(value) if value is ABSENT else value


def read_side(composer: Composer, setting: str, named: str, shared: Sequence[str]) -> Side:
    """Compose a side: `named` is the value of `setting` (task.failing); `shared` are words that hold for both.

    Raises BadInput when it is neither an experiment nor the directory of a training.
    """
    experiments = composer.loader.get_group_options("experiment")
    where = f"{setting}={named}"
    if named in experiments:
        words = [f"experiment={named}"]
    elif named and Path(named).is_dir():
        words = _words_of_directory(composer, where, Path(named))
    else:
        known = nearest(named, experiments) or f"; there are {listed(experiments)}"
        raise BadInput(f"{where}: neither an experiment nor a run directory{known}")
    shared_keys = {key_of(word) for word in shared}
    words = [*(word for word in words if key_of(word) not in shared_keys), *shared]
    composed = composer.compose(words)
    task = composed.config["task"]["name"]
    if task != "train":
        raise BadInput(f"{where}: is for task={task}; allowed is an experiment or a run that trains")
    return Side(named, words, composed)


def _words_of_directory(composer: Composer, where: str, path: Path) -> list[str]:
    run = read_run(path)
    task = run.info.get("task", "train")
    if task != "train":
        raise BadInput(f"{where}: is a task={task}; allowed is the directory of a training")
    run.check_repeatable(where)
    try:
        return words_of_run(composer, run)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def differences(failing: Side, working: Side) -> list[Difference]:
    """Return the keys that differ between the sides, in the order of the configuration.

    Where the sides chose another kind of a group (another `_target_`), the group is one key, because the arguments of
    the one mean nothing to the other. Keys that change nothing of what is computed are left out, and so are those that
    one side lacks and the other has as null (see `words_towards`). So is engine.epochs where the same engine.max_steps
    goes before it on both sides.
    Raises BadInput when no key differs, or more than `MOST_KEYS`.
    """
    found: list[tuple[str, Any, Any]] = []
    for group in GROUPS_OF_A_TRAINING:
        one, other = failing.composed.config[group], working.composed.config[group]
        if one.get("_target_") != other.get("_target_"):
            found.append((group, _chosen(failing, group), _chosen(working, group)))
            continue
        before, after = flat(one, f"{group}."), flat(other, f"{group}.")
        if before.get(_STEPS) is not None and before.get(_STEPS) == after.get(_STEPS):
            before, after = ({key: side[key] for key in side if key != _EPOCHS} for side in (before, after))
        for key in dict.fromkeys([*before, *after]):
            values = before.get(key, ABSENT), after.get(key, ABSENT)
            stated = {value is not None and value is not ABSENT for value in values}
            if key not in CHANGE_NOTHING and True in stated and not same(*values):
                found.append((key, *values))
    sides = f"task.failing={failing.named} task.working={working.named}"
    if not found:
        raise BadInput(f"{sides}: no key differs that changes anything, so there is nothing to attribute")
    keys = [key for key, _, _ in found]
    if len(found) > MOST_KEYS:
        raise BadInput(f"{sides}: {len(found)} keys differ ({listed(keys)}); allowed are at most {MOST_KEYS}")
    return [Difference(key, _short(key, keys), *values) for key, *values in found]


def _chosen(side: Side, group: str) -> str:
    return str(side.composed.choices.get(group) or side.composed.config[group].get("_target_"))


def _short(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a key, or the whole where another key ends in it, too."""
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def mixed(composer: Composer, failing: Side, working: Side, changes: Sequence[Difference]) -> list[str]:
    """Return the words of the failing side with `changes` taken from the working one. Raises BadInput."""
    if not changes:
        return failing.words
    target = {group: dict(failing.composed.config[group]) for group in GROUPS_OF_A_TRAINING}
    words = failing.words
    for change in changes:
        if change.is_group:
            target[change.key] = working.composed.config[change.key]
            choice = working.composed.choices.get(change.key)
            if choice in composer.loader.get_group_options(change.key):
                # What was set of the failing side's choice means nothing to this one.
                kept = [word for word in words if key_of(word).partition(".")[0] != change.key]
                words = [*kept, f"{change.key}={choice}"]
        else:
            group, *path = change.key.split(".")
            target[group] = _with(target[group], path, change.working)
    return words_towards(composer, words, target)


def _with(node: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of a nested mapping with one value set, or taken out where it is `ABSENT`."""
    name, *below = path
    if below:
        inner = node.get(name)
        return {**node, name: _with(inner if isinstance(inner, Mapping) else {}, below, value)}
    if value is ABSENT:
        return {key: entry for key, entry in node.items() if key != name}
    return {**node, name: value}
