"""Which runs an attribution needs: the keys that differ, the combinations of them, and the members of the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optexp.attribution.design import Design, design_for
from optexp.attribution.games import Combination
from optexp.attribution.sides import Difference, differences, mixed, read_side
from optexp.config.compose import Composed, Composer
from optexp.config.resolvers import slug
from optexp.config.values import Above, AtLeast, Below
from optexp.errors import BadInput, listed
from optexp.override_words import for_members, key_of
from optexp.sweeps.members import composed_member
from optexp.sweeps.record import MemberRecord, SweepRecord

_OF_THE_TASK = ("task", "seed", "name", "remark", "output_dir")
"""Keys of the request that say something about the attribution and not about its members."""


@dataclass(frozen=True)
class AttributionSettings:
    """See conf/task/attribute.yaml."""

    failing: str | None = None
    working: str | None = None
    seeds: Annotated[int, AtLeast(2)] = 8
    metric: Literal["val/loss", "val/accuracy"] = "val/loss"
    recovery: Annotated[float, Above(0), Below(1)] = 0.9
    max_combinations: Annotated[int, AtLeast(4)] = 64

    def __post_init__(self) -> None:
        for key, named in (("failing", self.failing), ("working", self.working)):
            if named is None:
                raise BadInput(f"{key}=null: allowed is the name of an experiment, or a run directory")


class Plan:
    """The runs of an attribution. Raises BadInput for whatever keeps them from being made."""

    def __init__(self, composed: Composed, settings: AttributionSettings) -> None:
        self.settings = settings
        if composed.choices.get("experiment"):
            raise BadInput(
                f"experiment={composed.choices['experiment']}: an attribution has two sides; name them with "
                "task.failing and task.working"
            )
        self.composer = Composer(composed.config_dir, multirun=True)
        shared = _shared_words(composed)
        self.failing = read_side(self.composer, "task.failing", str(settings.failing), shared)
        self.working = read_side(self.composer, "task.working", str(settings.working), shared)
        self.keys: list[Difference] = differences(self.failing, self.working)
        first = int(composed.config["seed"])
        self.seeds = list(range(first, first + settings.seeds))
        self.design: Design = design_for(len(self.keys), settings.max_combinations, first)
        self.words = {combination: self._words(combination) for combination in self.design.combinations}
        self.members: list[tuple[Combination, int]] = [
            (combination, seed) for combination in self.design.combinations for seed in self.seeds
        ]

    def changed(self, combination: Combination) -> list[Difference]:
        """Return the keys that a combination takes from the working side."""
        return [key for key, level in zip(self.keys, combination, strict=True) if level]

    def _words(self, combination: Combination) -> list[str]:
        changes = self.changed(combination)
        try:
            words = mixed(self.composer, self.failing, self.working, changes)
            composed_member(self.composer, words)
        except BadInput as error:
            raise BadInput(f"{self._where(changes)}: {error}") from None
        return words

    def _where(self, changes: Sequence[Difference]) -> str:
        if not changes:
            return f"task.failing={self.failing.named}"
        side = f"task.working={self.working.named}"
        if len(changes) == len(self.keys):
            return side
        return f"task.failing={self.failing.named} with {listed(change.key for change in changes)} of {side}"

    def command(self, combination: Combination) -> list[str]:
        """Return the command line of a combination, without the words that are for members only."""
        return ["optexp", *(word for word in self.words[combination] if word != _NO_CHECKPOINTS)]

    def record(self, command: Sequence[str]) -> SweepRecord:
        """Return the sweep of all combinations on all seeds, in the order of `members`."""
        found = []
        for number, (combination, seed) in enumerate(self.members):
            levels = zip(self.keys, combination, strict=True)
            swept: dict[str, Any] = {key.key: key.at(level) for key, level in levels}
            names = "+".join(key.name for key in self.changed(combination)) or "none"
            name = slug(f"{number}-{names},seed={seed}", longest=100)
            words = [*self.words[combination], f"seed={seed}"]
            found.append(MemberRecord(number, words, name, {**swept, "seed": seed}))
        return SweepRecord(list(command), [*(key.key for key in self.keys), "seed"], found)


_NO_CHECKPOINTS = "engine.checkpoint_every=null"


def _shared_words(composed: Composed) -> list[str]:
    """Return the words of the request that hold for all members; they write no checkpoints unless asked to."""
    shared = for_members(composed.overrides, _OF_THE_TASK)
    return [*shared, *([] if "engine.checkpoint_every" in map(key_of, shared) else [_NO_CHECKPOINTS])]
