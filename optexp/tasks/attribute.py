"""The task `attribute`: which of the changes between a failing and a working configuration repair it, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optexp.assemble import assemble
from optexp.attribution.answer import answer_of, main_numbers
from optexp.attribution.outcomes import measured, outcomes_in
from optexp.attribution.page import FIGURE, page_sections
from optexp.attribution.plan import AttributionSettings, Plan
from optexp.attribution.text import combinations_csv, headline, interactions_csv, keys_csv, print_answer
from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.errors import BadInput, Exit, StorageError
from optexp.records.console import relative, say
from optexp.report.figures.attribution import attribution_figure
from optexp.report.figures.style import save_png
from optexp.report.html import write_run
from optexp.run import Result
from optexp.sweeps.members import check_members, train_members
from optexp.task_record import Found, carry_out
from optexp.tasks import check_composed

RUNS = "runs"
"""The folder of the members, an ordinary sweep, below the directory of the task."""


class Attribute:
    """An attribution, refused or ready when constructed (BadInput)."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.composed = composed
        self.plan = Plan(composed, task_settings(AttributionSettings, composed.config["task"]))
        if self.plan.settings.metric == "val/accuracy":
            self._check_accuracy()
        try:
            check_members(self.plan.composer, self.plan.record([]))
        except BadInput as error:
            raise BadInput(f"a combination cannot be trained: {error}") from None

    def _check_accuracy(self) -> None:
        working = self.plan.working.composed
        training = assemble(working.config, check_composed(working), working.choices)
        if not training.program.objective.has_accuracy:
            name = training.dataset.name
            raise BadInput(f"task.metric=val/accuracy: {name} is a regression; allowed is val/loss")

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Train and answer in the directory `path`: the runs as a sweep below it, tables, figure, result.json, page."""
        self.command = list(command)
        result = carry_out(self.composed, path, command, overrides, self._work)
        if result.status == "completed":  # the page reads how it ended from the record
            say(f"report  {relative(write_run(path))}")
        return result

    def _work(self, path: Path) -> Found:
        self._train(path / RUNS)
        outcomes = outcomes_in(path / RUNS, self.plan)
        found = measured(outcomes)
        lost = [outcome for outcome in outcomes if outcome.value is None]
        if len(found.seeds) < 2:
            reasons = {f"{outcome.status}: {outcome.reason}" for outcome in lost}
            why = (
                f"no answer: {len(lost)} of {len(outcomes)} runs have no {self.plan.settings.metric}, so that fewer "
                f"than two seeds have one with every combination ({'; '.join(sorted(reasons))})"
            )
            say(why)
            return Found(result={"headline": why}, exit_status=int(Exit.MEMBERS_FAILED))
        answer = answer_of(self.plan, found)
        answer |= {"headline": headline(answer), "sections": page_sections(answer)}
        tables = {
            "keys.csv": keys_csv(answer),
            "interactions.csv": interactions_csv(answer),
            "combinations.csv": combinations_csv(answer),
        }
        written = {name: text for name, text in tables.items() if text is not None}
        figures = path / "figures"
        try:
            for name, text in written.items():
                (path / name).write_text(text, encoding="utf-8")
            figures.mkdir(exist_ok=True)
            save_png(attribution_figure(answer), figures / FIGURE)
        except OSError as error:
            raise StorageError(f"cannot write into {path}: {error.strerror or error}") from error
        print_answer(answer)
        say(f"{relative(path)}: {', '.join(written)}, figures/{FIGURE}")
        return Found(main_numbers(answer), answer, exit_status=int(Exit.MEMBERS_FAILED if lost else Exit.DONE))

    def _train(self, folder: Path) -> None:
        """Train all members. Raises SystemExit when a signal has ended them."""
        record = self.plan.record(self.command)
        folder.mkdir()
        record.create(folder)
        keys = ", ".join(key.key for key in self.plan.keys)
        combinations, seeds = len(self.plan.design.combinations), len(self.plan.seeds)
        say(f"what differs: {keys}; {combinations} combinations on {seeds} seeds")
        status = train_members(self.plan.composer, record, folder)
        if status > 128:
            raise SystemExit(status)
