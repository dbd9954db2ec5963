"""Which runs a table needs: the optimizers, their grids of learning rates, and the members of each sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optexp.config.compose import Composed, Composer
from optexp.config.resolvers import slug
from optexp.config.values import Above, AtLeast, Between
from optexp.errors import BadInput
from optexp.override_words import for_members, key_of
from optexp.sweeps.members import composed_member
from optexp.sweeps.record import MemberRecord, SweepRecord

TUNING_SEEDS = 1000
"""How far the seeds of tuning lie from those that are judged: what is chosen on a seed must not be judged on it."""

REFERENCE = "sgd momentum=0"
"""Times are relative to its step."""

_GROUPS = ("model", "dataset", "schedule", "engine")
_OF_THE_TABLE = ("task", "seed", "name", "remark", "output_dir", "experiment", *_GROUPS)


@dataclass(frozen=True)
class TableSettings:
    """The keys of conf/task/optimizer_table.yaml."""

    optimizers: list[str]
    rates: Annotated[int, AtLeast(3)] = 7
    rates_per_decade: Annotated[float, Above(0)] = 2
    widenings: Annotated[int, AtLeast(0)] = 2
    tuning_seeds: Annotated[int, Between(1, TUNING_SEEDS)] = 2
    seeds: Annotated[int, Between(2, TUNING_SEEDS)] = 5
    metric: Literal["val/accuracy", "val/loss"] | None = None
    target: Annotated[float, Above(0)] | None = None
    tolerance: Annotated[float, Between(0, 1, open_above=True)] = 0.1
    eval_every: Annotated[int, AtLeast(1)] = 5
    repeats: Annotated[int, AtLeast(3)] = 15

    def __post_init__(self) -> None:
        if not self.optimizers:
            raise BadInput("optimizers=[]: allowed is a list of entries of conf/optimizer")
        for name in self.optimizers:
            if not name.split():
                raise BadInput(f"optimizers={self.optimizers}: one of them has no name")
        twice = [name for name in self.optimizers if self.optimizers.count(name) > 1]
        if twice:
            raise BadInput(f"optimizers={self.optimizers}: {twice[0]} stands there twice")


@dataclass
class Contestant:
    """An optimizer of the table: its name there, its override words, and the places of its grid around its default."""

    name: str
    words: list[str]
    default_lr: float
    places: range
    per_decade: float

    @property
    def rates(self) -> list[float]:
        """Its learning rates, ascending."""
        return self.rates_at(self.places)

    def rates_at(self, places: Iterable[int]) -> list[float]:
        """Return the learning rates so many points above the default, in three digits."""
        return [float(f"{self.default_lr * 10 ** (place / self.per_decade):.3g}") for place in places]


def words_of(name: str) -> list[str]:
    """Return the override words of `adam eps=1e-4`: an entry, and changes to its arguments."""
    entry, *changes = name.split()
    return [f"optimizer={entry}", *(f"optimizer.{change}" for change in changes)]


class Plan:
    """The runs of a table. Raises BadInput for whatever keeps one of its optimizers from being compared."""

    def __init__(self, composed: Composed, settings: TableSettings) -> None:
        self.settings = settings
        self.seed = int(composed.config["seed"])
        if composed.choices.get("experiment"):
            raise BadInput(
                f"experiment={composed.choices['experiment']}: a table compares optimizers at the values of their own "
                "entries; choose model, dataset, schedule and engine by themselves"
            )
        for word in composed.overrides:
            for key in ("engine.eval_every", "engine.early_stopping_patience"):
                if key_of(word) == key:
                    raise BadInput(f"{word}: a table decides this; evaluations are task.eval_every steps apart")
        self.common = common_words(composed)
        self.composer = Composer(composed.config_dir, multirun=True)
        self.reference = self._contestant(REFERENCE)
        self.contestants = [self._contestant(name) for name in settings.optimizers]

    def _contestant(self, name: str) -> Contestant:
        words = words_of(name)
        try:
            config = self.composer.compose([*self.common, *words]).config
        except BadInput as error:
            raise BadInput(f"task.optimizers: {name}: {error}") from None
        lr = config["optimizer"].get("lr")
        if not isinstance(lr, int | float) or isinstance(lr, bool) or not 0 < lr < math.inf:
            raise BadInput(f"task.optimizers: {name}: has no learning rate to look around; write '{name} lr=…'")
        below = (self.settings.rates - 1) // 2
        places = range(-below, self.settings.rates - below)
        return Contestant(name, words, float(lr), places, self.settings.rates_per_decade)

    @property
    def tuning_seeds(self) -> list[int]:
        start = self.seed + TUNING_SEEDS
        return list(range(start, start + self.settings.tuning_seeds))

    @property
    def judged_seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.settings.seeds))

    def composed(self, contestant: Contestant, lr: float) -> Composed:
        """Return the checked configuration of one run. Raises BadInput."""
        return composed_member(self.composer, self.words(contestant, lr, self.seed))

    def words(self, contestant: Contestant, lr: float, seed: int) -> list[str]:
        """Return the override words of one run."""
        own = [word for word in contestant.words if not word.startswith("optimizer.lr=")]
        return [
            *self.common,
            *own,
            f"optimizer.lr={lr:g}",
            f"engine.eval_every={self.settings.eval_every}",
            f"seed={seed}",
        ]

    def record(self, rates: Mapping[str, Sequence[float]], seeds: Sequence[int], command: Sequence[str]) -> SweepRecord:
        """Return the sweep of the learning rates of each contestant, by its name, on every seed."""
        members: list[MemberRecord] = []
        for contestant in self.contestants:
            for lr in rates.get(contestant.name, ()):
                for seed in seeds:
                    number = len(members)
                    swept: dict[str, Any] = {"optimizer": contestant.name, "optimizer.lr": lr, "seed": seed}
                    name = slug(f"{number}-{contestant.name.replace(' ', ',')},lr={lr:g},seed={seed}", longest=100)
                    members.append(MemberRecord(number, self.words(contestant, lr, seed), name, swept))
        return SweepRecord(list(command), ["optimizer", "optimizer.lr", "seed"], members)

    def widened(self, on_edge: Mapping[str, str | None]) -> dict[str, list[float]]:
        """Give every contestant two more learning rates and return them, by its name.

        `on_edge` tells for each on which edge its best one lies: low, high, or None.
        """
        added = {}
        for contestant in self.contestants:
            below, above = {"low": (2, 0), "high": (0, 2), None: (1, 1)}[on_edge[contestant.name]]
            old = contestant.places
            contestant.places = range(old.start - below, old.stop + above)
            added[contestant.name] = contestant.rates_at(place for place in contestant.places if place not in old)
        return added


def common_words(composed: Composed) -> list[str]:
    """Return the override words that all runs share: what was chosen and set of model, data, schedule and engine.

    Choices are all named, because a task may come with another default than a training.
    """
    chosen = [f"{group}={composed.choices[group]}" for group in _GROUPS]
    if "engine.checkpoint_every" not in map(key_of, composed.overrides):
        chosen.append("engine.checkpoint_every=null")
    return chosen + for_members(composed.overrides, _OF_THE_TABLE)
