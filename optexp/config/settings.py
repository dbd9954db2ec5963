"""A mapping from a file or the command line as a dataclass: unknown keys, types and ranges are refused by name."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from optexp.config import values
from optexp.errors import BadInput, listed, nearest

T = TypeVar("T")


def settings(kind: type[T], node: Any, where: str) -> T:
    """Make a dataclass of a mapping. `where` stands in front of every key in an error: `task.`, `study/x.yaml: `.

    Raises BadInput naming the key, its value and what is allowed; also for what the dataclass itself refuses.
    """
    if not isinstance(node, dict):
        raise BadInput(f"{where.rstrip(':. ')}={node}: allowed is a mapping")
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in node.items():
        if key not in fields:
            raise BadInput(
                f"{where}{key}={value}: no such key{nearest(str(key), fields)}; there are {listed(fields) or 'none'}"
            )
        if not values.fits(value, hints[key]):
            shown = "null" if value is None else value
            raise BadInput(f"{where}{key}={shown}: allowed is {values.allowed(hints[key])}")
    for key, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and key not in node:
            raise BadInput(f"{where}{key} is missing")
    try:
        return kind(**node)
    except BadInput as error:
        raise BadInput(f"{where}{error}") from None


def task_settings(kind: type[T], task: dict[str, Any]) -> T:
    """Make the settings of a task, `task.key=…`, from its node of the configuration. Raises BadInput."""
    return settings(kind, {key: value for key, value in task.items() if key not in ("name", "reads")}, "task.")
