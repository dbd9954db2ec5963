"""The task `optimizer_table`: the comparison of optimizers that guides print from memory, measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optexp.assemble import assemble
from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.errors import StorageError
from optexp.optimizer_table.measure import facts, main_numbers, measure, metric_of
from optexp.optimizer_table.plan import Plan, TableSettings
from optexp.optimizer_table.table import print_results, to_csv, to_markdown
from optexp.records.console import relative, say
from optexp.report.figures.optimizer_table import rates_figure, table_figure
from optexp.report.figures.style import save_png
from optexp.run import Result
from optexp.sweeps.members import check_members
from optexp.task_record import Found, carry_out


class OptimizerTable:
    """A comparison of optimizers, refused or ready when constructed (BadInput)."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        settings = task_settings(TableSettings, composed.config["task"])
        self.composed = composed
        self.plan = Plan(composed, settings)
        reference = self.plan.composed(self.plan.reference, self.plan.reference.default_lr)
        training = assemble(reference.config, engine, reference.choices)
        self.metric = metric_of(training, settings.metric)
        self.setting = facts(training, composed.choices)
        rates = {contestant.name: contestant.rates for contestant in self.plan.contestants}
        check_members(self.plan.composer, self.plan.record(rates, self.plan.tuning_seeds, []))

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Measure in the directory `path`: sweeps below it, the table as text, CSV, Markdown, figures and JSON."""
        self.command = list(command)
        return carry_out(self.composed, path, command, overrides, self._work)

    def _work(self, path: Path) -> Found:
        table = {"setting": self.setting, **measure(self.plan, self.metric, path, self.command)}
        figures = path / "figures"
        try:
            (path / "table.csv").write_text(to_csv(table), encoding="utf-8")
            (path / "table.md").write_text(to_markdown(table) + "\n", encoding="utf-8")
            figures.mkdir(exist_ok=True)
            save_png(table_figure(table), figures / "optimizer_table.png")
            save_png(rates_figure(table), figures / "learning_rates.png")
        except OSError as error:
            raise StorageError(f"cannot write the table into {path}: {error.strerror or error}") from error
        print_results(table)
        say(f"{relative(path)}: table.csv, table.md, figures/optimizer_table.png, figures/learning_rates.png")
        return Found(main_numbers(table), table)
