"""Every model × optimizer × clipping × schedule, each with three members as different as one program may have them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from fusing import alone, assert_same_runs, together, without_key_biases

STEPS = 50

Words = tuple[str, ...]
Choice = tuple[Words, tuple[Words, Words, Words]]  # what the members have in common, and what each has of its own

_IMAGES = ("dataset=digits", "dataset.batch_size=8")

MODELS: dict[str, Choice] = {  # the cheapest first
    "linear": (("model=linear", *_IMAGES), ((), (), ())),
    "mlp": (("model=mlp", "model.hidden=[16]", *_IMAGES), ((), (), ())),
    "transformer": (
        (
            *("model=transformer", "model.layers=1", "model.width=16", "model.heads=2"),
            *("dataset=text", "dataset.path={book}", "dataset.context_length=8", "dataset.batch_size=8"),
        ),
        (("model.dropout=0.1",), (), ("model.dropout=0.3",)),
    ),
    "resnet": (("model=resnet", "model.width=2", *_IMAGES), ((), (), ())),
}

OPTIMIZERS: dict[str, Choice] = {
    "sgd": (
        ("optimizer=sgd",),
        (
            ("optimizer.lr=0.02", "optimizer.nesterov=true"),
            ("optimizer.lr=0.05", "optimizer.momentum=0", "optimizer.weight_decay=0"),
            ("optimizer.lr=0.05", "optimizer.momentum=0.8", "optimizer.dampening=0.5", "optimizer.weight_decay=0.01"),
        ),
    ),
    "adam": (
        ("optimizer=adam",),
        (
            ("optimizer.lr=1e-3", "optimizer.weight_decay=0.01"),
            ("optimizer.lr=2e-3", "optimizer.betas=[0.8,0.95]"),
            ("optimizer.lr=3e-3", "optimizer.eps=1e-3"),
        ),
    ),
    "adamw": (
        ("optimizer=adamw",),
        (
            ("optimizer.lr=1e-3", "optimizer.weight_decay=0.1"),
            ("optimizer.lr=2e-3", "optimizer.betas=[0.8,0.95]", "optimizer.weight_decay=0"),
            ("optimizer.lr=3e-3", "optimizer.eps=1e-3"),
        ),
    ),
    "rmsprop": (
        ("optimizer=rmsprop",),
        (
            ("optimizer.lr=1e-3", "optimizer.weight_decay=0.01"),
            ("optimizer.lr=1e-3", "optimizer.alpha=0.9", "optimizer.eps=1e-3"),
            ("optimizer.lr=5e-4", "optimizer.momentum=0.5"),
        ),
    ),
    "adagrad": (
        ("optimizer=adagrad",),
        (
            ("optimizer.lr=0.01", "optimizer.weight_decay=0.01"),
            ("optimizer.lr=0.02", "optimizer.lr_decay=0.05", "optimizer.eps=1e-3"),
            ("optimizer.lr=0.02", "optimizer.initial_accumulator_value=0.1"),
        ),
    ),
    "lion": (
        ("optimizer=lion",),
        (
            ("optimizer.lr=3e-4", "optimizer.weight_decay=0.1"),
            ("optimizer.lr=1e-3", "optimizer.betas=[0.8,0.95]", "optimizer.weight_decay=0"),
            ("optimizer.lr=5e-4", "optimizer.weight_decay=0.01"),
        ),
    ),
}

CLIPS: dict[str, Choice] = {
    "unclipped": ((), ((), (), ())),
    "clipped": (("engine.clip_norm=0.5",), ((), (), ())),
    "differing": ((), (("engine.clip_norm=0.3",), (), ("engine.clip_norm=1.0",))),
}

SCHEDULES: dict[str, Choice] = {
    "constant": (("schedule=constant",), ((), ("schedule.warmup_steps=7",), ("schedule.warmup_fraction=0.5",))),
    "cosine": (
        ("schedule=cosine",),
        (("schedule.warmup_steps=10",), ("schedule.T_max=20", "schedule.eta_min=1e-4"), ()),
    ),
    "step": (
        ("schedule=step", "schedule.unit=step"),
        (("schedule.step_size=15",), ("schedule.step_size=7", "schedule.gamma=0.7"), ("schedule.warmup_steps=5",)),
    ),
    "linear": (
        ("schedule=linear",),
        (("schedule.end_factor=0.2",), ("schedule.total_iters=20",), ("schedule.warmup_steps=5",)),
    ),
    "restarts": (
        ("schedule=cosine_restarts", "schedule.unit=step"),
        (("schedule.T_0=10",), ("schedule.T_0=8", "schedule.T_mult=2"), ("schedule.T_0=20", "schedule.eta_min=1e-4")),
    ),
    "plateau": (
        ("schedule=plateau", "engine.eval_every=5"),
        (
            ("schedule.patience=0", "schedule.threshold=0.2"),
            ("schedule.patience=1", "schedule.threshold=0.5", "schedule.factor=0.5"),
            ("schedule.patience=0", "schedule.threshold=0.1", "schedule.warmup_steps=5"),
        ),
    ),
}

DIMENSIONS: tuple[dict[str, Choice], ...] = (MODELS, OPTIMIZERS, CLIPS, SCHEDULES)
ALL: list[tuple[str, ...]] = list(itertools.product(*DIMENSIONS))

_COMMON = (f"engine.max_steps={STEPS}", "engine.log_every=1", "engine.eval_every=25", "engine.checkpoint_every=null")
_OWN: tuple[Words, Words, Words] = (
    ("seed=3",),
    ("seed=4", "engine.label_smoothing=0.1"),
    ("seed=3", "engine.label_smoothing=0.3"),
)


def words_of(combination: Iterable[str], book: Path, *more: str) -> tuple[list[str], list[list[str]]]:
    """Return the words that all members of a combination have in common, and those of each."""
    common, own = list(_COMMON), [list(words) for words in _OWN]
    for choices, name in zip(DIMENSIONS, combination, strict=True):
        shared, differing = choices[name]
        common += [word.format(book=book) for word in shared]
        for member, words in zip(own, differing, strict=True):
            member += words
    return [*common, *more], own


def pairs(combination: Iterable[str]) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    """Return the pairs of choices that meet in a combination."""
    return set(itertools.combinations(enumerate(combination), 2))


def covering() -> list[tuple[str, ...]]:
    """Return combinations in which each two choices meet at least once: the greedy choice, the cheapest model first."""
    missing = set().union(*map(pairs, ALL))
    chosen = []
    while missing:
        best = max(ALL, key=lambda combination: len(pairs(combination) & missing))  # the first one of the best
        chosen.append(best)
        missing -= pairs(best)
    return chosen


COVERING = covering()


def assert_same_curves(combination: tuple[str, ...], book: Path) -> None:
    """In single precision, the loss of every step and whatever is evaluated agree to 1e-5.

    What is measured on gradients agrees to 1e-2: a loss is continuous where a rectifier bends, its gradient is not.
    """
    common, variants = words_of(combination, book)
    runs = together(common, variants), alone(common, variants)
    if combination[0] == "transformer" and combination[1] != "sgd":
        runs = without_key_biases(runs[0]), without_key_biases(runs[1])
    assert_same_runs(*runs, rows=1e-5, gradients=1e-2, weights=None)


def assert_same_weights(combination: tuple[str, ...], book: Path) -> None:
    """In double precision, everything recorded and all that a checkpoint would hold agree to 1e-9."""
    common, variants = words_of(combination, book, "engine.precision=fp64")
    runs = together(common, variants), alone(common, variants)
    if combination[0] == "transformer" and combination[1] in ("lion", "adagrad"):
        runs = without_key_biases(runs[0]), without_key_biases(runs[1])
    assert_same_runs(*runs, rows=1e-9, weights=1e-9)
