"""Override words that lead from what some words compose to a given configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optexp.config.check import GROUPS_OF_A_TRAINING
from optexp.config.compose import Composer, quoted
from optexp.errors import BadInput
from optexp.override_words import key_of
from optexp.records.reading import Run

_DEFAULTS_COUNT = ("engine",)
"""Groups whose missing keys have the value that is the default today; of others a missing key is left out."""


def words_of_run(composer: Composer, run: Run) -> list[str]:
    """Return the words that compose the config.yaml of a training, from the choices it was made of where they exist.

    Raises BadInput when there are none, such as for a config without a model.
    """
    missing = [group for group in GROUPS_OF_A_TRAINING if not isinstance(run.config.get(group), Mapping)]
    if missing:
        raise BadInput(f"its config.yaml has no {missing[0]}")
    choices = run.info.get("choices") or {}
    words = [
        f"{group}={choices[group]}"
        for group in GROUPS_OF_A_TRAINING
        if choices.get(group) in composer.loader.get_group_options(group)
    ]
    return words_towards(composer, words, run.config)


def words_towards(composer: Composer, words: Sequence[str], target: Mapping[str, Any]) -> list[str]:
    """Return `words` with changes behind them, so that together they compose the groups of `target`.

    Each key has one word, as the command line demands. A key that is null and one that `target` lacks are the same:
    null stands for the default in every group, and Hydra drops no null. Only where `target` has another constructor
    than the choice it was made of, such a key is dropped by two words, which the command line refuses.
    Raises BadInput where no words do, such as a value that Hydra's grammar cannot write.
    """
    kept = list(words)
    while True:  # a word that gives way may have been what the change starts from, such as a key that it added
        changes = _changes_towards(composer, kept, target)
        changed = {key_of(change) for change in changes}
        rest = [word for word in kept if key_of(word) not in changed]
        if len(rest) == len(kept):
            break
        kept = rest
    every = [*kept, *changes]
    for change in _changes_towards(composer, every, target):
        raise BadInput(f"{change}: the command line cannot set this value")
    return every


def _changes_towards(composer: Composer, words: Sequence[str], target: Mapping[str, Any]) -> list[str]:
    """Return the words that lead from what `words` compose to the groups of `target`."""
    start = composer.compose(words).config
    return [
        change for group in GROUPS_OF_A_TRAINING for change in _changes(start[group], target.get(group), group, group)
    ]


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a configuration are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _changes(have: Any, want: Any, key: str, group: str) -> Iterator[str]:
    """Yield the words that turn one value into another."""
    if not isinstance(have, Mapping) or not isinstance(want, Mapping):
        if not same(have, want):
            yield f"{key}={value_word(want)}"
        return
    if group not in _DEFAULTS_COUNT:
        lacking = [name for name in have if name not in want]
        yield from (f"~{key}.{name}" for name in lacking if have[name] is not None)
        if have.get("_target_") != want.get("_target_"):  # another constructor, which may not know these keys at all
            for name in lacking:
                if have[name] is None:  # Hydra drops no null
                    yield from (f"++{key}.{name}=0", f"~{key}.{name}")
    for name, value in want.items():
        if name in have:
            yield from _changes(have[name], value, f"{key}.{name}", group)
        else:
            yield f"++{key}.{name}={value_word(value)}"


def value_word(value: Any) -> str:
    """Write a plain value in Hydra's override grammar, every digit of it."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(value_word, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{value_word(entry)}' for name, entry in value.items())}}}"
    return repr(value) if isinstance(value, float) else json.dumps(value)
