"""The arms of a verification: the original run and its repairs, as words that compose them and members of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optexp.attribution.words import words_of_run
from optexp.config.compose import Composer
from optexp.config.resolvers import slug
from optexp.diagnosis.command import repaired_words
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History
from optexp.errors import BadInput
from optexp.override_words import key_of
from optexp.records.reading import Run, flat
from optexp.sweeps.members import composed_member
from optexp.sweeps.record import MemberRecord
from optexp.verification.budget import Budget, shortened

MOST_PRESCRIPTIONS = 4
"""So many are tried one by one."""


@dataclass(frozen=True)
class Prescription:
    """Override words, and the causes that ask for them."""

    causes: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return "+".join(self.causes) or "original"

    def joined(self, other: Prescription) -> Prescription:
        """Return both together; where both set a key, this one does."""
        own = {key_of(word) for word in self.words}
        return Prescription(
            (*self.causes, *other.causes), (*self.words, *(w for w in other.words if key_of(w) not in own))
        )


ORIGINAL = Prescription((), ())


def prescriptions(diagnosis: Diagnosis) -> list[Prescription]:
    """Return what a diagnosis prescribes, likeliest first, the same words once, at most `MOST_PRESCRIPTIONS`."""
    causes: dict[tuple[str, ...], list[str]] = {}
    for finding in diagnosis.findings:
        if finding.prescription:
            causes.setdefault(finding.prescription, []).append(finding.cause)
    found = [Prescription(tuple(names), words) for words, names in causes.items()]
    return found[:MOST_PRESCRIPTIONS]


def together(tried: Sequence[Prescription]) -> Prescription | None:
    """Return the first two prescriptions as one, None where that is none of its own."""
    if len(tried) < 2:
        return None
    union = tried[0].joined(tried[1])
    return None if any(set(union.words) == set(each.words) for each in tried) else union


class Arms:
    """Makes members of a sweep from prescriptions: `run` as it was recorded, with the words of one on all `seeds`."""

    def __init__(self, run: Run, seeds: Sequence[int], budget: Budget, trust: Sequence[str]) -> None:
        """Raises BadInput when the run's configuration cannot be composed."""
        self.composer = Composer(multirun=True)
        self.seeds = list(seeds)
        self.budget = budget
        self.trust = list(trust)
        self.history = History.of_run(run)
        self.batch_size = run.config.get("dataset", {}).get("batch_size")
        try:
            self.words = words_of_run(self.composer, run)
        except BadInput as error:
            raise BadInput(f"{run.path}: cannot be trained again: {error}") from None

    def words_with(self, prescription: Prescription) -> list[str]:
        """Return the words of every member of an arm but its seed. Raises BadInput when they compose nothing."""
        words = _with(self.words, self.history, prescription.words)
        composed = composed_member(self.composer, [*words, *self._trusted])
        shorter = shortened(composed.config, self.budget, self.batch_size)
        return [*_with(words, self.history, [*shorter, "engine.checkpoint_every=null"]), *self._trusted]

    def members(self, prescription: Prescription, first: int, keys: Sequence[str]) -> list[MemberRecord]:
        """Return the members of an arm, numbered from `first` on; `keys` are those that any prescription sets."""
        words = self.words_with(prescription)
        composed = composed_member(self.composer, words)
        settings = flat(composed.config)
        values = {key: composed.choices.get(key, settings.get(key)) for key in keys}
        return [
            MemberRecord(
                number,
                [*words, f"seed={seed}"],
                slug(f"{number}-{prescription.name},seed={seed}", longest=100),
                {**values, "seed": seed},
            )
            for number, seed in enumerate(self.seeds, first)
        ]

    @property
    def _trusted(self) -> list[str]:
        return [f"trust=[{','.join(self.trust)}]"] if self.trust else []


def _with(words: Sequence[str], history: History, new: Sequence[str]) -> list[str]:
    """Return words with new ones in the place of those that set the same; keys that words have added stay added."""
    added = {key_of(word) for word in words if word.startswith("+")}
    every = repaired_words(replace(history, overrides=tuple(words)), new) or []
    return [f"++{word}" if key_of(word) in added and word[0] not in "+~" else word for word in every]
