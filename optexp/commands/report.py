"""`optexp report DIR`: one page with verdict, figures and table of a run, a sweep or a study."""

from __future__ import annotations

from pathlib import Path

from optexp.commands import Parser
from optexp.errors import Exit
from optexp.records.console import relative


def main(argv: list[str]) -> int:
    """Write DIR/report.html; return the exit status. Raises BadInput when DIR is no run, sweep or study."""
    parser = Parser(
        "report",
        "Write DIR/report.html: verdict, figures, config differences, table, and how to reproduce it, in one file\n"
        "that needs no network.",
        "  optexp report outputs/runs/2026-01-31/120000-digits-resnet-sgd\n"
        "  optexp report outputs/sweeps/2026-01-31/120000-digits-resnet-sgd",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="the directory of a run, a sweep or a study")
    path: Path = parser.parse_args(argv).dir
    from optexp.report.html import write

    print(f"report: {relative(write(path))}")
    return Exit.DONE
