"""The effect of an answer as arithmetic on what was measured: `exp1.accuracy - exp2.accuracy`.

An effect is computed for each seed from numbers of that seed, and its mean over the seeds is judged. Mind that the mean
of `abs`, `min` or `max` of noisy numbers is not that of the numbers: `abs(a.x - b.x)` and `max(…)` lie above zero, and
`min(…)` below, even when nothing has an effect. For "above" `min(…)` errs to the safe side, for "below" `max(…)` does.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NoReturn

from optexp.errors import BadInput, listed, nearest
from optexp.statistics import combinations, factorial_effect
from optexp.studies.measures import Censored

Numbers = Mapping[tuple[str, str], float | None]
"""What was measured on one seed, by arm and measure; None where a run gave nothing."""

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
OF_ONE: dict[str, Callable[[float], float]] = {"abs": abs, "log10": math.log10, "sqrt": math.sqrt}
OF_SEVERAL: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "mean": fmean}
GRAMMAR = "numbers, arm.measure, + - * /, abs, log10, sqrt of one, min, max, mean of two or more"
GRAMMAR_OF_FACTORS = "main(factor, measure), interaction(factor, factor, measure), of log10(measure), too"

_Part = Callable[[Numbers], float]


class _UndefinedError(ArithmeticError):
    """A number that the effect needs was not measured."""


class Expression:
    """An effect, read once and evaluated for each seed.

    `arms` and `measures` are the names that may stand around a dot. With `factors` the arms are the full two-level
    design, in the order of `statistics.combinations`: the last factor changes fastest, off before on.
    """

    def __init__(self, text: str, arms: Sequence[str], measures: Sequence[str], factors: Sequence[str] = ()) -> None:
        """Read an expression. Raises BadInput in one line naming it and what is allowed; nothing in it is executed."""
        if factors and len(arms) != 2 ** len(factors):
            raise ValueError(f"{len(arms)} arms are no full design of {len(factors)} factors")
        self.text = " ".join(text.split())
        self._arms, self._measures, self._factors = list(arms), list(measures), list(factors)
        self._names: set[tuple[str, str]] = set()
        try:
            self._value = self._read(ast.parse(self.text, mode="eval").body)
        except SyntaxError:
            self._refuse("is no arithmetic")
        except (ValueError, RecursionError, MemoryError):  # a zero byte; thousands of nested parts
            self._refuse("cannot be read")
        if not self._names:
            self._refuse("has no arm.measure")

    def names(self) -> set[tuple[str, str]]:
        """Return every (arm, measure) that the expression depends on."""
        return set(self._names)

    def value(self, numbers: Numbers) -> float | None:
        """Return the effect on one seed.

        None when a number that it needs is missing or not finite, when it has no finite value (a division by zero,
        the logarithm of nothing), or when all that it needs is censored: two runs that never reach a threshold may
        differ by any number of steps. Raises KeyError for a name that `numbers` does not have at all.
        """
        if all(isinstance(numbers[name], Censored) for name in self._names):
            return None
        try:
            value = float(self._value(numbers))
        except (ArithmeticError, ValueError):
            return None
        return value if math.isfinite(value) else None

    def _read(self, node: ast.expr) -> _Part:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return self._number(number)
            case ast.Attribute(value=ast.Name(id=arm), attr=measure):
                return self._measured(arm, measure)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                part = self._read(operand)
                return lambda numbers: -part(numbers)
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
                combine, first, second = OPERATORS[type(sign)], self._read(left), self._read(right)
                return lambda numbers: combine(first(numbers), second(numbers))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(name, arguments)
        return self._refuse(f"'{ast.unparse(node)}' is not allowed")

    def _number(self, number: float) -> _Part:
        try:
            value = float(number)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            self._refuse("has a number that is not finite")
        return lambda numbers: value

    def _measured(self, arm: str, measure: str) -> _Part:
        name = (self._one_of(arm, self._arms, "arm"), self._one_of(measure, self._measures, "measure"))
        self._names.add(name)

        def value(numbers: Numbers) -> float:
            number = numbers[name]
            if number is None or not math.isfinite(number):
                raise _UndefinedError
            return number

        return value

    def _call(self, name: str, arguments: list[ast.expr]) -> _Part:
        if name in OF_ONE:
            function = OF_ONE[name]
            if len(arguments) != 1:
                self._refuse(f"{name} takes one argument, not {len(arguments)}")
            part = self._read(arguments[0])
            return lambda numbers: function(part(numbers))
        if name in OF_SEVERAL:
            of_several = OF_SEVERAL[name]
            if len(arguments) < 2:
                self._refuse(f"{name} takes two arguments or more, not {len(arguments)}")
            parts = [self._read(argument) for argument in arguments]
            return lambda numbers: of_several([part(numbers) for part in parts])
        if name in ("main", "interaction"):
            return self._effect(name, arguments)
        functions = [*OF_ONE, *OF_SEVERAL, *(["main", "interaction"] if self._factors else [])]
        return self._refuse(f"there is no function '{name}'{nearest(name, functions)}")

    def _effect(self, name: str, arguments: list[ast.expr]) -> _Part:
        """Read `main(factor, measure)` or `interaction(factor, factor, …, measure)`, of `log10(measure)`, too."""
        if not self._factors:
            self._refuse(f"{name} needs a study with factors")
        words = [argument.id for argument in arguments[:-1] if isinstance(argument, ast.Name)]
        if len(words) != len(arguments) - 1 or (len(words) != 1 if name == "main" else len(words) < 2):
            self._refuse(f"{name} takes {'a factor' if name == 'main' else 'two factors or more'} and a measure")
        involved = [self._factors.index(self._one_of(factor, self._factors, "factor")) for factor in words]
        if len(set(involved)) < len(involved):
            self._refuse(f"{name} takes different factors")
        parts = self._of_every_arm(name, arguments[-1])
        design = combinations(len(self._factors))

        def value(numbers: Numbers) -> float:
            by_levels = {levels: [part(numbers)] for levels, part in zip(design, parts, strict=True)}
            return factorial_effect(by_levels, involved)[0]

        return value

    def _of_every_arm(self, name: str, measure: ast.expr) -> list[_Part]:
        """Read a measure, or a function of one, as a part for each arm."""
        match measure:
            case ast.Name(id=word):
                return [self._measured(arm, word) for arm in self._arms]
            case ast.Call(func=ast.Name(id=function), args=[ast.Name(id=word)], keywords=[]) if function in OF_ONE:
                dotted = [ast.Attribute(value=ast.Name(id=arm), attr=word) for arm in self._arms]
                return [self._call(function, [part]) for part in dotted]
        return self._refuse(f"{name} takes a measure, or log10 of one, in the last place")

    def _one_of(self, word: str, words: Sequence[str], kind: str) -> str:
        if word not in words:
            self._refuse(f"there is no {kind} '{word}'{nearest(word, words)}; there are {listed(words) or 'none'}")
        return word

    def _refuse(self, reason: str) -> NoReturn:
        grammar = f"{GRAMMAR}, {GRAMMAR_OF_FACTORS}" if self._factors else GRAMMAR
        shown = self.text if len(self.text) <= 200 else f"{self.text[:199]}…"
        raise BadInput(f"effect={shown!r}: {reason}; allowed are {grammar}") from None
