"""Which members of a sweep can be trained in one program: those that differ in numbers and seeds only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optexp.config.compose import Composed
from optexp.override_words import without_hydras
from optexp.sweeps.record import MemberRecord

_ALONE = ("seed", "name", "output_dir", "remark", "schedule")
"""Parts of a configuration that each member of a program has for itself: they change no operation."""

_ALONE_IN = {"engine": ("clip_norm", "label_smoothing"), "model": ("dropout",)}
_SWITCHES = ("nesterov", "maximize")
"""Arguments of optimizers that are no numbers and can differ all the same."""


@dataclass
class Entry:
    """A member to be trained: what it is, its place in the sweep's record, and what it needs of the machine."""

    composed: Composed
    record: MemberRecord
    on_cpu: bool = True
    small: bool = False  # a step has too few operations for a second thread
    begun_at: int | None = None  # the step of the last checkpoint of an earlier session
    gone: bool = False  # somebody has moved or deleted its directory

    @property
    def config(self) -> dict[str, Any]:
        return self.composed.config

    @property
    def words(self) -> list[str]:
        """The override words that are not Hydra's own."""
        return without_hydras(self.record.overrides)


def structure(config: Mapping[str, Any]) -> str:
    """Return what members of one program must have in common, as text: shapes, kinds, sizes and lengths.

    Of an optimizer's arguments all numbers (and lists of numbers) may differ; learning rate schedules may differ
    altogether, because they are evaluated for each member by itself.
    """
    common = {key: value for key, value in config.items() if key not in _ALONE}
    for group, keys in _ALONE_IN.items():
        common[group] = {key: value for key, value in common[group].items() if key not in keys}
    common["optimizer"] = {
        key: "its own" if key in _SWITCHES or _is_number(value) else value for key, value in common["optimizer"].items()
    }
    return json.dumps(common, sort_keys=True, default=str)


def _is_number(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def alike(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Sort members into groups of equal structure that have come equally far, in the order of the sweep."""
    groups: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((structure(entry.config), entry.begun_at), []).append(entry)
    return list(groups.values())
