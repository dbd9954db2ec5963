"""Override words about the sweep as a whole: `hydra.mode`, `hydra.sweeper`, `hydra.launcher`; honoured or refused.

They belong to no member: a member alone would read them in another way, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from optexp.config.compose import Composed, Composer
from optexp.errors import BadInput, listed, nearest

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
FUSED_LAUNCHER = "optexp.sweeps.fused.FusedLauncher"
FUSED_KEYS = ("group_size", "workers")

_MODE = "hydra.mode"
_PARAMS = "hydra.sweeper.params"


def is_foreign(base: Composed) -> bool:
    """Return whether a sweeper of somebody else's decides which members there are."""
    return bool(base.hydra.sweeper._target_ != BASIC_SWEEPER)


def separated(composer: Composer, words: Sequence[str]) -> tuple[list[str], list[Override]]:
    """Return the words of the members, and those that set `hydra.sweeper.params`; `hydra.mode` is in neither.

    Raises BadInput when Hydra's own settings are given several values, or when `hydra.mode` contradicts `-m`.
    """
    own, params = [], []
    for override in composer.parse(words):
        key = override.key_or_group
        if key.startswith(f"{_PARAMS}."):
            params.append(override)
        elif override.is_hydra_override() and override.is_sweep_override():
            raise BadInput(f"{override.input_line}: is a setting of the sweep and not of a member; give it one value")
        elif key == _PARAMS:
            params.append(override)
        elif key == _MODE:
            if not override.is_delete() and str(override.value()).rpartition(".")[2] != "MULTIRUN":
                raise BadInput(
                    f"{override.input_line}: contradicts -m; a sweep is MULTIRUN, so leave out one of the two"
                )
        else:
            own.append(str(override.input_line))
    return own, params


def words_of_params(base: Composed, changes: Sequence[Override]) -> list[str]:
    """Return what `hydra.sweeper.params` asks for, in files and then on the command line, as override words.

    Raises BadInput for `trust`, for a key to be dropped that is not there, and where another sweeper cannot take them.
    """
    node = base.hydra.sweeper.get("params")
    if is_foreign(base):
        for change in changes:
            if node is None or change.is_sweep_override():
                raise BadInput(
                    f"{change.input_line}: {base.hydra.sweeper._target_} takes it from a file or as one quoted value, "
                    f"'{_PARAMS}.KEY=\"0,1\"', where a file has {_PARAMS}"
                )
        return []
    params = dict(node or {})
    for change in changes:
        params = _changed(params, change)
    if "trust" in params:
        raise BadInput(f"{_PARAMS}.trust={params['trust']}: allowed is trust=[…] on the command line only")
    return [f"{key}={value}" for key, value in params.items()]


def _changed(params: dict[str, Any], change: Override) -> dict[str, Any]:
    key = change.key_or_group[len(_PARAMS) + 1 :]
    if change.is_delete():
        if key and key not in params:
            raise BadInput(f"{change.input_line}: there is no such key to drop; there are {listed(params) or 'none'}")
        return {name: value for name, value in params.items() if key and name != key}
    value = None if change.is_sweep_override() else change.value()
    if key:
        text = value if isinstance(value, str) else str(change.input_line).partition("=")[2]
        return {**params, key: text}
    if value is not None and not isinstance(value, dict):
        raise BadInput(f"{change.input_line}: allowed are keys with values, {_PARAMS}.seed=0,1")
    return {**params, **value} if value else {}


def why_hydra(base: Composed) -> str | None:
    """Return why one of Hydra's launchers must run the members, or None when ours can.

    Raises BadInput when ours was asked for by name, or one of its settings was made, and it cannot; and for settings
    that nobody would read.
    """
    launcher, sweeper = base.hydra.launcher, base.hydra.sweeper
    if not is_foreign(base) and sweeper.max_batch_size is not None:
        raise BadInput(
            f"hydra.sweeper.max_batch_size={sweeper.max_batch_size}: all members are given to the launcher at once; "
            "how many train at a time is a setting of the launcher: hydra.launcher.workers, joblib's n_jobs"
        )
    if launcher._target_ != FUSED_LAUNCHER:
        return f"hydra/launcher={base.choices['hydra/launcher']}"
    for key, value in launcher.items():
        if key not in (*FUSED_KEYS, "_target_"):
            known = f"{nearest(str(key), FUSED_KEYS)}; it takes {listed(FUSED_KEYS)}"
            raise BadInput(f"hydra.launcher.{key}={value}: hydra/launcher=fused takes no '{key}'{known}")
    asked = [word.lstrip("+~") for word in base.overrides]
    honoured = ("hydra.sweep.dir=", "hydra.launcher.", _MODE, _PARAMS)
    reasons = ["hydra/sweeper is not Hydra's own"] if is_foreign(base) else []
    reasons += [word for word in asked if word.startswith("hydra.") and not word.startswith(honoured)]
    reasons += ["hydra.callbacks"] if base.hydra.callbacks else []
    ours = [word for word in asked if word == "hydra/launcher=fused" or word.startswith("hydra.launcher.")]
    if reasons and ours:
        raise BadInput(f"{ours[0]}: {reasons[0]} is for members that Hydra runs; {_without(ours[0])}")
    return reasons[0] if reasons else None


def _without(word: str) -> str:
    return "add hydra/launcher=basic" if word.startswith("hydra/") else "leave out one of the two"
