"""What the tests of fused programs share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small text to learn: 6,000 characters of 17 kinds."""
    path = tmp_path_factory.mktemp("book") / "squares.txt"
    path.write_text("".join(f"{number} by {number} is {number * number}\n" for number in range(300)))
    return path
