"""The command that runs a prescription: the run's own words with the prescription's, no key given twice."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from optexp.diagnosis.history import History
from optexp.override_words import key_of


def repaired_words(history: History, prescription: Sequence[str]) -> list[str] | None:
    """Return the override words of the run with those of the prescription; None where the run's are unknown.

    A word whose key the prescription sets gives way, in its place. Words for Hydra itself say where results go and
    are left out. Where a group is chosen anew, words for keys that belonged to the old choice are left out too.
    """
    if history.overrides is None:
        return None
    new = {key_of(word): word for word in prescription}
    groups = [key for key in new if "." not in key]
    words: list[str] = []
    for word in history.overrides:
        key = key_of(word)
        if key in new:
            words.append(new.pop(key))
        elif not key.startswith("hydra") and not any(_belongs(key, group) for group in groups):
            words.append(word)
    return [*words, *new.values()]


def repaired_command(history: History, prescription: Sequence[str], program: str = "optexp") -> str | None:
    """Return the command line, quoted for a shell; None where the run's own words are unknown."""
    words = repaired_words(history, prescription)
    return None if words is None else f"{program} {shlex.join([*history.flags, *words])}"


def _belongs(key: str, group: str) -> bool:
    return key.startswith(f"{group}.") and not key.rpartition(".")[2].startswith("warmup")
