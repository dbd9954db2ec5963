"""Training the plants, all of a family in one sweep: plants that differ in numbers only train together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from plants import Plant

from optexp.config.compose import Composer
from optexp.config.resolvers import slug
from optexp.records.reading import Run, read_run
from optexp.records.run_directory import SWEEP_FILE
from optexp.sweeps.members import check_members, train_members
from optexp.sweeps.record import GOOD_ENDS, MemberRecord, SweepRecord

TRUST = "trust=[planted_faults]"
LABELS = "labels.json"


def directory(plant: Plant) -> str:
    """Return the name of a plant's run directory: what is planted, and a digest of all its words."""
    digest = hashlib.sha256(" ".join(plant.words).encode()).hexdigest()[:8]
    return f"{slug(plant.name, longest=90)}-{digest}"


def sweep_of(plants: Sequence[Plant]) -> SweepRecord:
    """Return the sweep that trains these plants."""
    members = [
        MemberRecord(number, [*plant.words, TRUST], directory(plant), {"cause": plant.cause or "healthy"})
        for number, plant in enumerate(plants)
    ]
    return SweepRecord(["scripts/fault_benchmark"], ["cause"], members)


def check(plants: Sequence[Plant]) -> None:
    """Compose and check every plant as `optexp` would before it trains it; raises BadInput."""
    check_members(Composer(multirun=True), sweep_of(plants))


def train(plants: Sequence[Plant], folder: Path) -> list[Run]:
    """Train what is not yet there in `folder`, and return the runs in the order of the plants.

    Runs of plants that have left the lists since stay where they are and are not looked at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = sweep_of(plants)
    if (folder / SWEEP_FILE).exists():
        before = {member.directory: member for member in SweepRecord.read(folder).members}
        members = [
            dataclasses.replace(before.get(member.directory, member), number=member.number) for member in record.members
        ]
        record = dataclasses.replace(record, members=members)
        record.write(folder)
    else:
        record.create(folder)
    if any(member.status not in GOOD_ENDS for member in record.members):
        train_members(Composer(multirun=True), record, folder)
    return [read_run(folder / member.directory) for member in record.members]


def write_labels(plants: Sequence[Plant], counted: Sequence[bool], folder: Path) -> None:
    """Write which run is which plant: `labels.json` in `folder`, run directory to the plant's fields and `counts`."""
    labels = {
        directory(plant): {
            **dataclasses.asdict(plant),
            "right": sorted(plant.right),
            "part": sorted(plant.part),
            "counts": counts,
        }
        for plant, counts in zip(plants, counted, strict=True)
    }
    (folder / LABELS).write_text(json.dumps(labels, indent=1))
