"""The benchmark of the diagnosis on planted faults: train what is missing, diagnose, and print how right it is.

The lists of plants are beside this file. Thresholds and confidences are fitted on the MLP and the ResNet alone,
each on seeds of its own. The Transformer is for the end: it is trained and diagnosed only when it is asked for by name.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import fault_tables
from fault_tables import Outcome
from fault_training import train, write_labels
from harm import counted
from plants import FAMILIES, FITTED, HEALTHY, SEEDS, Plant, plants
from scoring import Answer

from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.errors import BadInput, Exit
from optexp.records.reading import Run


def answer(plant: Plant, run: Run) -> Answer:
    """Diagnose a run whose fault is known."""
    findings = diagnose(History.of_run(run)).findings
    stated = tuple((finding.cause, finding.confidence, finding.decades) for finding in findings)
    return Answer(plant.cause, plant.right, stated, plant.decades, plant.part)


def diagnosed(family: str, seeds: str, folder: Path) -> tuple[list[tuple[Plant, Run]], dict[str, int]]:
    """Train a family with a set of seeds; returns what counts, and how many plants were dropped by cause."""
    every = plants(family, seeds)
    folder = folder / (family if seeds == "first" else f"{family}-{seeds}")
    with contextlib.redirect_stdout(sys.stderr):
        runs = train(every, folder)
    counts = counted(every, runs)
    write_labels(every, counts, folder)
    dropped: dict[str, int] = {}
    found = []
    for plant, run, counts_too in zip(every, runs, counts, strict=True):
        if counts_too:
            found.append((plant, run))
        else:
            dropped[plant.cause or HEALTHY] = dropped.get(plant.cause or HEALTHY, 0) + 1
    return found, dropped


def outcome(title: str, families: Sequence[str], seeds: str, folder: Path, misses: bool) -> Outcome:
    """Return the diagnoses of some families together, and print those that are wrong when asked."""
    answers: list[Answer] = []
    dropped: dict[str, int] = {}
    for family in families:
        found, of_family = diagnosed(family, seeds, folder)
        for cause, number in of_family.items():
            dropped[cause] = dropped.get(cause, 0) + number
        for plant, run in found:
            said = answer(plant, run)
            answers.append(said)
            if misses and not said.is_right:
                stated = ", ".join(f"{cause} {confidence:.2f}" for cause, confidence, _ in said.findings[:3])
                print(f"{plant.cause or HEALTHY}: {stated or 'nothing'}  {run.path}")
    return Outcome(title, families, answers, dropped)


TITLES = {
    "fresh": "Fitted families, fresh seeds",
    "calibration": "Fitted families, seeds that confidences are fitted on",
    "first": "Fitted families, seeds that the rules were made with",
}
UNFITTED = "Unfitted family"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/fault_benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("outputs/faults"), help="where the runs are, or are made")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FITTED), help="default: %(default)s")
    parser.add_argument("--seeds", nargs="+", choices=SEEDS, default=list(TITLES), help="of the fitted families")
    parser.add_argument("--fit", action="store_true", help="fit the confidences on the fitted families first")
    parser.add_argument("--misses", action="store_true", help="print each run whose first finding is wrong")
    parser.add_argument("--page", type=Path, help="write tables between the two marks of this page, figures beside it")
    given = parser.parse_args(argv)
    try:
        if given.fit:
            from fault_fitting import fit

            fit([pair for family in FITTED for pair in diagnosed(family, "calibration", given.runs)[0]])
        fitted = [family for family in given.family if family in FITTED]
        unfitted = [family for family in given.family if family not in FITTED]
        parts = [(TITLES[seeds], fitted, seeds) for seeds in given.seeds if fitted]
        parts += [(UNFITTED, unfitted, "first")] if unfitted else []
        outcomes = [outcome(*part, given.runs, given.misses) for part in parts]
        print(fault_tables.page(outcomes, outcomes))
        if given.page:
            from fault_figures import draw

            unseen = [each for each in outcomes if each.title in (TITLES["fresh"], UNFITTED)]
            draw(unseen, given.page.parent / "figures" / "diagnosis")
            page = fault_tables.into_page(given.page.read_text(encoding="utf-8"), fault_tables.page(outcomes, unseen))
            given.page.write_text(page, encoding="utf-8")
    except BadInput as error:
        print(f"fault_benchmark: {error}", file=sys.stderr)
        return int(Exit.BAD_INPUT)
    return int(Exit.DONE)


if __name__ == "__main__":
    sys.exit(main())
