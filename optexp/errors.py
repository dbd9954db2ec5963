"""What a user can do wrong, said in one line, and the exit status of every way a command can end."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of the command line (documented in README.md)."""

    DONE = 0
    UNEXPECTED = 1
    BAD_INPUT = 2
    DIVERGED = 3
    MEMBERS_FAILED = 4
    STORAGE = 5
    CHECKS_FAILED = 6
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143


class BadInput(Exception):
    """A mistake in what the user asked for. Its text is one line naming key, value and what is allowed."""


class Unstackable(Exception):
    """Runs cannot be trained in one program; the message says why, in a short clause."""


class StorageError(Exception):
    """The disk failed while a run was being recorded: full, read-only or gone."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the choice closest to `word`, or one it begins; else an empty string."""
    choices = list(choices)
    matches = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    matches = matches or [choice for choice in choices if len(word) > 2 and choice.startswith(word)]
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def listed(choices: Iterable[str]) -> str:
    """Return the choices as a readable list: `a, b, c`."""
    return ", ".join(str(choice) for choice in choices)
