"""What to set hyperparameters to, so that each of them can show that it is alive.

A hyperparameter that is a tuple (betas, eps of Adafactor) counts as one for each of its entries: `betas[0]`.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

SWITCHES = ("foreach", "fused", "capturable", "differentiable")
"""Arguments that choose how a step is computed, and must not change what is computed."""

UNSEEN = {
    "min_8bit_size": "a size, below which state is kept in 32 bits: the problems here are smaller",
    "is_paged": "chooses where state lies",
    "args": "a bag of further options",
    "optim_bits": "chooses the precision of the state",
    "block_wise": "chooses how state is quantized",
}
"""Arguments that are not expected to show on small problems, and why."""

Changes = dict[str, Any]

_WAKE: dict[str, list[Changes]] = {
    "dampening": [{"momentum": 0.9, "nesterov": False}, {"momentum": 0.9}],
    "nesterov": [{"momentum": 0.9, "dampening": 0.0}, {"momentum": 0.9}],
    "fixed_decay": [{"weight_decay": 0.1, "weight_decouple": True}],
    "weight_decouple": [{"weight_decay": 0.1}],
    "decoupled_weight_decay": [{"weight_decay": 0.1}],
    "update_period": [{"p": 10.0}],
    "num_samples": [{"p": 10.0}],
    "hessian_distribution": [{"p": 10.0}],
}
"""Settings of others under which a hyperparameter is known to matter, tried before all others."""

_VALUES: dict[str, list[Any]] = {
    "adjust_lr_fn": ["match_rms_adamw", "original"],
    "line_search_fn": ["strong_wolfe", None],
    "max_eval": [2],
    "tolerance_grad": [1.0],
    "tolerance_change": [1.0],
    "history_size": [1],
    "t0": [3.0],
    "update_period": [2, 1],
}


def entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, int | None]]:
    """Yield (shown name, argument, index in it or None) of every hyperparameter that should be alive."""
    for name, value in settings.items():
        if name in SWITCHES:
            continue
        if isinstance(value, list | tuple) and value and all(isinstance(v, int | float | None) for v in value):
            for index in range(len(value)):
                yield f"{name}[{index}]", name, index
        else:
            yield name, name, None


def alternatives(kind: type, settings: Mapping[str, Any], argument: str, index: int | None) -> list[Changes]:
    """Return other values to try for a hyperparameter, each as a change of the settings; none where none is known."""
    value = settings[argument]
    if index is None:
        return [{argument: other} for other in _other_values(kind, settings, argument, value)]
    own = list(value)
    others = _other_values(kind, settings, argument, own[index], index)
    return [{argument: (*own[:index], other, *own[index + 1 :])} for other in others]


def _other_values(
    kind: type, settings: Mapping[str, Any], name: str, value: Any, index: int | None = None
) -> list[Any]:
    if name in _VALUES:
        return [other for other in _VALUES[name] if other != value]
    if name == "lr":
        return [2 * value] if isinstance(value, int | float) and value else [1e-3]
    if name == "step_sizes":  # they clamp steps that start at lr
        return [0.9 * settings["lr"], 1.1 * settings["lr"]][index or 0 :][:1]
    if name.endswith("coefficients"):
        return [0.98 * value]  # the iteration diverges for others
    if name == "eps" or name.endswith("_eps"):
        return [other for other in (1e-2, 1.0, 10.0) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int) and (value > 1 or _hint(kind, name) is int):
        return [2 * value, value // 2] if value > 1 else [10, 1 - value]
    if isinstance(value, int | float):
        return _other_numbers(float(value))
    return _other_words(kind, name, value)


def _other_numbers(value: float) -> list[float]:
    if value == 0:
        return [0.1, 0.9, 1.0]
    if 0 < value < 1:
        return [0.5 if value > 0.6 else 0.9, 2 * value if value < 0.5 else value / 2]
    return [2 * value, value / 2]


def _hint(kind: type, name: str) -> Any:
    try:
        return typing.get_type_hints(kind.__init__).get(name)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):
        return None


def _other_words(kind: type, name: str, value: Any) -> list[Any]:
    """Return what the type of an argument names beside its value: other words of a Literal, true or numbers for null.

    Of the numbers one is large: as a count of steps the small ones are over at once.
    """
    hint, found = _hint(kind, name), []
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is typing.Literal:
            found += [word for word in typing.get_args(part) if word != value]
        elif value is None and part is bool:
            found.append(True)
        elif value is None and part in (int, float):
            found += [2] if part is int else [0.1, 0.5, 10.0]
    return found


def contexts(kind: type, settings: Mapping[str, Any], argument: str) -> Iterator[Changes]:
    """Yield settings of the others under which a hyperparameter may matter: as configured, known ones, any other."""
    yield {}
    for changes in _WAKE.get(argument, []):
        if changes.keys() <= settings.keys():
            yield changes
    for _, other, index in entries(settings):
        if other not in (argument, "lr", "maximize"):
            yield from alternatives(kind, settings, other, index)
