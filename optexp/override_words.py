"""Override words, as the command line and run.json have them: `optimizer.lr=1`, `+key=value`, `~key`, `model=mlp`."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def key_of(word: str) -> str:
    """Return the key of an override word, or the group: `optimizer.lr` of `+optimizer.lr=1`."""
    return word.lstrip("+~").partition("=")[0]


def is_hydras(word: str) -> bool:
    """Return whether a word is for Hydra itself: where results go, who launches."""
    return key_of(word).startswith(("hydra.", "hydra/"))


def without_hydras(words: Iterable[str]) -> list[str]:
    """Return the words that are not for Hydra itself."""
    return [word for word in words if not is_hydras(word)]


def for_members(words: Iterable[str], own: Collection[str]) -> list[str]:
    """Return the words of a request that hold for the runs that its task trains, too.

    The task's settings are its own, and so are the keys in `own`. Of Hydra's words those about the launcher count.
    """

    def holds(word: str) -> bool:
        key = key_of(word)
        if is_hydras(word):
            return key.startswith(("hydra.launcher", "hydra/launcher"))
        return key not in own and not key.startswith("task.")

    return [word for word in words if holds(word)]
