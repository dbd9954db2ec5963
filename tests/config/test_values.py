"""Which plain values an annotation allows, and how that is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional, Protocol, TypeVar, Union

import pytest
import torch

from optexp.config.values import Above, AtLeast, Below, Between, allowed, fits

NAN, INF = float("nan"), float("inf")
T = TypeVar("T")


class SupportsLength(Protocol):
    def __len__(self) -> int: ...


Beta = Annotated[float, Between(0, 1, open_above=True)]

# annotation, values it allows, values it does not
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [0, -3, 10**30], [True, False, 1.0, 1.5, "1", None, [1]]),
    (float, [0, 0.5, -2, 1e308], [True, NAN, INF, -INF, "0.5", None, [0.5]]),
    (bool, [True, False], [0, 1, "true", None]),
    (str, ["", "a"], [1, None, True, ["a"]]),
    (None, [None], [0, "", False]),
    (type(None), [None], [0]),
    (Any, [None, 1, "a", [1], {"a": 1}], []),
    (object, [None, 1, "a", [1]], []),
    (SupportsLength, [1, "a"], []),
    (T, [1, "a"], []),
    (int | None, [1, None], [1.5, "1", True]),
    (Optional[float], [1.5, 2, None], [NAN, "x"]),  # noqa: UP045 - users write it so
    (Union[int, str], [1, "a"], [1.5, None, True]),  # noqa: UP007
    (Literal["fp32", "bf16"], ["fp32", "bf16"], ["fp16", None, 32]),
    (Literal[1, 2], [1, 2], [True, 3, "1"]),
    (Literal[False], [False], [True, 0, None]),
    (Literal["full"] | int, ["full", 3], ["half", 3.5, None]),
    (list[int], [[], [1, 2]], [[1.5], 1, "12", None, {"a": 1}]),
    (Sequence[float], [[], [1, 2.5]], [["a"], 1.0, "ab"]),
    (list[list[int]], [[[1], []]], [[1]]),
    (tuple[float, float], [[0.9, 0.99], (0.9, 0.99)], [[0.9], [1, 2, 3], 0.9, ["a", "b"]]),
    (tuple[int, str], [[1, "a"]], [["a", 1], [1]]),
    (tuple[float, ...], [[], [1, 2, 3]], [["a"], 1.0]),
    (dict[str, int], [{"a": 1}], ["a", 1, None]),
    (Annotated[float, AtLeast(0)], [0, 0.0, 3.5], [-1e-12, NAN, INF, True, "0"]),
    (Annotated[float, Above(0)], [1e-300], [0, 0.0, -1]),
    (Annotated[float, Below(1)], [-1, 0.999], [1, 1.5, INF]),
    (Annotated[int, AtLeast(1)], [1, 5], [0, 1.5, True]),
    (Annotated[float, Between(0, 1)], [0, 1, 0.5], [-0.1, 1.1]),
    (Beta, [0, 0.999], [1, 1.0, -0.1]),
    (Annotated[float, AtLeast(1), Between(0, 2)], [1, 2], [0.5, 2.5]),
    (Annotated[float, Above(0)] | None, [None, 0.1], [0, NAN]),
    (list[Beta], [[], [0.9, 0.0]], [[1.0], 0.9]),
    (Annotated[float, "a note that is no range"], [-1.0], [NAN]),
    (float | torch.Tensor, [0.1], ["0.1", None]),
    (torch.Tensor, [], [0.1, "a", None]),
    (Callable[[int], int], [], [1, "a", None]),
]


@pytest.mark.parametrize(("annotation", "good", "bad"), CASES, ids=[str(case[0]) for case in CASES])
def test_values_fit_or_not(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(value, annotation)] == []
    assert [value for value in bad if fits(value, annotation)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (float, "a finite number"),
        (bool, "true or false"),
        (str, "a string"),
        (None, "null"),
        (int | None, "an integer or null"),
        (Annotated[float, AtLeast(0)], "a finite number ≥ 0"),
        (Annotated[float, Above(0)] | None, "a finite number > 0 or null"),
        (Annotated[float, Between(0, 1)], "a finite number in [0, 1]"),
        (Beta, "a finite number in [0, 1)"),
        (Annotated[float, Above(0), Below(1)], "a finite number > 0 and < 1"),
        (Literal["fp32", "bf16"], "one of fp32, bf16"),
        (Literal[False], "false"),
        (Annotated[int, AtLeast(1)] | Literal["full"], "an integer ≥ 1 or full"),
        (list[Beta], "a list, each a finite number in [0, 1)"),
        (tuple[int, ...], "a list, each an integer"),
        (tuple[float, str], "a list of a finite number and a string"),
        (float | torch.Tensor, "a finite number"),  # no tensor can come from a YAML file
    ],
)
def test_what_is_allowed_is_said_in_words(annotation: Any, words: str) -> None:
    assert allowed(annotation) == words
