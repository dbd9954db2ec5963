"""The sweeper: expands a sweep, names each member's directory by its swept values, hands all members to the launcher.

It is Hydra's basic sweeper without what costs time and loses runs: members were composed and checked before the
sweep began (see optexp/cli.py), so they are not composed again here, and a failing member does not hide the others.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins

from optexp.config.compose import quoted
from optexp.config.resolvers import member_slug


class OptexpSweeper(BasicSweeper):
    """Hydra sweeper plugin, chosen by conf/config.yaml (`hydra/sweeper: optexp`)."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all members through the launcher; returns its results, one per member."""
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
        members = self.split_arguments(overrides, None)[0]
        jobs = [
            [*words, f"hydra.sweep.subdir={quoted(f'{number}-{member_slug(words, swept)}')}"]
            for number, words in enumerate(members)
        ]
        return self.launcher.launch(jobs, initial_job_idx=0)


def register() -> None:
    """Make the sweeper known to Hydra; plugins in a namespace package are not found in an editable install."""
    Plugins.instance().register(OptexpSweeper)
