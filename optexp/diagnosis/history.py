"""Everything that a diagnosis looks at: the rows of a run and the settings that produced them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optexp.records.reading import Run, flat

BASELINES = ("class frequencies", "token frequencies", "training mean")
"""Names in a run's `baselines` of the loss that needs no inputs: that of predicting the same for every sample."""


@dataclass(frozen=True)
class ScheduleFacts:
    """The class of the schedule (`Cosine`), and the length of its warm-up in optimizer steps."""

    name: str
    warmup_steps: int = 0


@dataclass(frozen=True)
class History:
    """What happened in a run. Whatever is unknown is None, or empty.

    `rows` are those of metrics.jsonl. `settings` are the optimizer's own (`lr`, `momentum`, ...), of its first group;
    `differing` names those in which other groups differ; `optimizer` is its class (`SGD`). `baseline` is the loss of
    predicting without looking at the inputs. `inputs` has mean, std and largest of the training inputs. `trainable` and
    `parameters` count numbers. `config` has the dotted keys of the run's config, `overrides` the words that made it,
    `flags` those that stood in front of them.
    """

    rows: Sequence[Mapping[str, float]]
    status: str = "completed"
    reason: str | None = None
    total_steps: int | None = None
    optimizer: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    schedule: ScheduleFacts | None = None
    clip_norm: float | None = None
    batch_size: int | None = None
    num_train: int | None = None
    objective: str | None = None
    baseline: float | None = None
    inputs: Mapping[str, float] | None = None
    trainable: int | None = None
    parameters: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] | None = None
    flags: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, run: Run) -> History:
        """Return the history of a run directory, finished or not. Raises BadInput when it cannot be read."""
        info, config = run.info, run.config
        node = _mapping(config.get("optimizer"))
        settings = {key: value for key, value in node.items() if key != "_target_"}
        engine, data, model = (_mapping(part) for part in (config.get("engine"), info.get("data"), info.get("model")))
        baselines = _mapping(info.get("baselines"))
        batch_size = data.get("batch_size") or _mapping(config.get("dataset")).get("batch_size")
        overrides = info.get("overrides")
        return cls(
            rows=run.rows,
            status=run.status,
            reason=info.get("reason"),
            total_steps=info.get("total_steps"),
            optimizer=str(node.get("_target_", "")).rpartition(".")[2],
            settings=settings,
            differing=tuple(run.differing_settings),
            schedule=_schedule(_mapping(config.get("schedule")), info.get("total_steps")),
            clip_norm=engine.get("clip_norm"),
            batch_size=batch_size if isinstance(batch_size, int) else None,
            num_train=_mapping(data.get("sizes")).get("train"),
            objective=_objective(run),
            baseline=next((float(baselines[name]) for name in BASELINES if baselines.get(name) is not None), None),
            inputs=_mapping(data.get("inputs")) or None,
            trainable=model.get("trainable"),
            parameters=model.get("parameters"),
            config=flat(config),
            overrides=None if overrides is None else tuple(map(str, overrides)),
            flags=_flags(str(info.get("command") or "")),
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _schedule(node: Mapping[str, Any], total_steps: int | None) -> ScheduleFacts | None:
    if not node:
        return None
    fraction, steps = node.get("warmup_fraction"), node.get("warmup_steps")
    warmup = round(fraction * total_steps) if fraction is not None and total_steps else steps or 0
    return ScheduleFacts(str(node.get("_target_", "")).rpartition(".")[2], int(warmup))


def _objective(run: Run) -> str:
    """Return what is minimized, which is not recorded: only regression has no accuracy, and only text has bigrams."""
    if "bigram cross-entropy" in _mapping(run.info.get("baselines")):
        return "language"
    has_accuracy = any("train/accuracy" in row or "val/accuracy" in row for row in run.rows[:50])
    return "classification" if has_accuracy else "regression"


def _flags(command: str) -> tuple[str, ...]:
    """Return the flags of a recorded command that decide about what is computed: the folder of the user's configs."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ()
    for number, word in enumerate(words):
        if word in ("--config-dir", "-cd") and number + 1 < len(words):
            return ("--config-dir", words[number + 1])
        if word.startswith("--config-dir="):
            return ("--config-dir", word.partition("=")[2])
    return ()
