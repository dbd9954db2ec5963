"""What a child process answers when its training did not simply end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optexp.errors import BadInput, StorageError, Unstackable


@dataclass(frozen=True)
class Apart:
    """The answer of a group that is better trained one by one."""

    reason: str


@dataclass(frozen=True)
class Gone:
    """The answer of a training that lost the directories of some members: somebody has moved or deleted them."""

    reason: str
    directories: list[str]


@dataclass(frozen=True)
class Raised:
    """The answer of one of Hydra's launchers that has raised something: in a line, and in full."""

    reason: str
    traceback: str


def one_line(error: BaseException) -> str:
    """Return what an error says, with its type unless the text was written for people."""
    text = (
        str(error) if isinstance(error, BadInput | StorageError | Unstackable) else f"{type(error).__name__}: {error}"
    )
    return text.strip().splitlines()[0]


def gone_or_not(error: StorageError, paths: Sequence[Path]) -> str | Gone:
    """Return the answer of a training that could not write to these directories, which it had made."""
    gone = [path.name for path in paths if not (path / ".hydra").is_dir()]  # written first: else it is another one
    return Gone(str(error), gone) if gone else str(error)
