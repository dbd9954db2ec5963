"""optexp compare: what differs between runs, in their configs and in their results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optexp.commands import Parser, check_output_file
from optexp.errors import BadInput, StorageError
from optexp.records.console import STATUS_STYLES, relative
from optexp.records.numbers import duration, measured, setting
from optexp.records.reading import ABSENT, Run, differences, find_runs
from optexp.report.tables import Column, print_table, table_width, terminal_width


def main(argv: list[str]) -> int:
    """Print config differences and metrics side by side and draw the curves; return the exit status.

    Raises BadInput when a folder does not exist or there are no two runs to compare, StorageError when the picture
    cannot be written.
    """
    parser = Parser(
        "compare",
        "Show what differs between runs: their configs, their results, and their curves in a picture.",
        "  optexp compare outputs/runs/2026-01-31/120000-exp2_sgd_B32 outputs/runs/2026-01-31/120100-exp1_adam_B32\n"
        "  optexp compare outputs/sweeps/2026-01-31/120000-digits-resnet-sgd --png lr.png",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="run directories, or folders of them")
    parser.add_argument("--png", type=Path, default=Path("comparison.png"), metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    check_output_file("--png", arguments.png)
    found = {run.path.resolve(): run for folder in arguments.folders for run in find_runs(folder)}
    runs = list(found.values())
    if len(runs) < 2:
        shown = " ".join(map(str, arguments.folders))
        raise BadInput(f"compare: found {len(runs)} run{'s' * (not runs)} in {shown}, needs at least two")
    labels = [letters(index) for index in range(len(runs))]
    print_table(
        [
            {"": label, "run": relative(run.path), "status": run.status, "reason": run.info.get("reason") or ""}
            for label, run in zip(labels, runs, strict=True)
        ],
        [
            Column(""),
            Column("run"),
            Column("status", style=lambda status: STATUS_STYLES.get(status, "")),
            Column("reason", optional=1),
        ],
    )
    print()
    _print_comparison(config_rows(runs, labels), result_rows(runs, labels), labels)
    from optexp.report.figures import curves

    try:
        curves(runs, arguments.png, labels)
    except OSError as error:
        raise StorageError(f"--png {arguments.png}: cannot be written ({error.strerror})") from error
    print(f"curves: {relative(arguments.png)}")
    return 0


def letters(index: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for 0, 1, ..."""
    return (letters(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def config_rows(runs: Sequence[Run], labels: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per setting that differs: its key under `config`, and the text of its value under each label.

    Below the settings stand the code, the device and the torch version, where they differ.
    """
    rows = []
    for key, values in differences(runs).items():
        if key.endswith("._target_"):  # the class alone says it: optimizer SGD, AdamW
            key, values = key.removesuffix("._target_"), [str(value).rpartition(".")[2] for value in values]
        rows.append({"config": key} | dict(zip(labels, map(setting, values), strict=True)))
    for key, values in {
        "(code)": [_commit(run.info.get("git")) for run in runs],
        "(device)": [str(run.info.get("device") or ABSENT) for run in runs],
        "(torch)": [str((run.info.get("environment") or {}).get("torch") or ABSENT) for run in runs],
    }.items():
        if len(set(values)) > 1:
            rows.append({"config": key} | dict(zip(labels, values, strict=True)))
    return rows


def _commit(git: Mapping[str, Any] | None) -> str:
    return git["commit"][:8] + "+changes" * bool(git["dirty"]) if git else ABSENT


def result_rows(runs: Sequence[Run], labels: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per result, with the label of the best run under `best` where better has a meaning."""

    def row(name: str, texts: Sequence[str], best: str = "") -> dict[str, str]:
        return {"result": name, **dict(zip(labels, texts, strict=True)), "best": best}

    tags = dict.fromkeys(tag for run in runs for tag in run.metrics if tag.startswith(("train/", "val/", "test/")))
    rows = [row("steps", [setting(run.last_step) for run in runs])]
    rows.append(row("wall time", [duration(run.wall_time) for run in runs]))
    for tag in tags:
        texts = [measured(run.metrics[tag]) if tag in run.metrics else "" for run in runs]
        rows.append(row(tag, texts, _best(tag, runs, labels)))
    summits = [run.info.get("best") for run in runs]
    if any(summits):
        texts = [f"{measured(best['value'])} @ {best['step']}" if best else "" for best in summits]
        rows.append(row(f"best {next(best['metric'] for best in summits if best)}", texts))
    return rows


def _best(tag: str, runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Return the labels of the runs with the best value of a metric: the lowest loss, the highest of any other.

    A run that diverged is never best: its last value is from before it did. Nor is there a best of different data sets.
    """
    values = [math.nan if run.status == "diverged" else run.metrics.get(tag) for run in runs]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite or len({run.choice("dataset") for run in runs}) > 1:
        return ""
    best = min(finite) if tag.endswith("loss") else max(finite)
    return " ".join(label for label, value in zip(labels, values, strict=True) if value == best)


def _print_comparison(
    settings: Sequence[Mapping[str, str]], results: Sequence[Mapping[str, str]], labels: Sequence[str]
) -> None:
    """Print one column per run where they all fit side by side, else one line per run, else columns in portions."""
    runs = [Column(label, numeric=True) for label in labels]
    lines, line_columns = _one_line_per_run(settings, results, labels)
    needed = table_width(lines, [column for column in line_columns if not column.optional])
    if table_width(results, [Column("result"), *runs, Column("best")]) > terminal_width() >= needed:
        left_out = print_table(lines, line_columns)
        if left_out:
            print(f"a wider terminal also shows: {', '.join(column.heading for column in left_out)}")
        print()
        return
    if settings:
        _print_portions(settings, [Column("config")], runs, [])
    else:
        print("the configs are the same\n")
    _print_portions(results, [Column("result")], runs, [Column("best")])


def _one_line_per_run(
    settings: Sequence[Mapping[str, str]], results: Sequence[Mapping[str, str]], labels: Sequence[str]
) -> tuple[list[dict[str, str]], list[Column]]:
    """Return a table of one line per run, with all settings and as many results as fit, validation before others."""
    columns = [Column(""), *(Column(row["config"], numeric=True) for row in settings)]
    for place, row in enumerate(results, 1):
        columns.append(Column(row["result"], numeric=True, optional=place + 100 * ("val/" not in row["result"])))
    lines = [{"": label} for label in [*labels, "best"]]
    for row in [*settings, *results]:
        for line in lines:
            line[row.get("config") or row["result"]] = row.get(line[""], "")
    return lines, columns


def _print_portions(
    rows: Sequence[Mapping[str, str]], first: Sequence[Column], runs: Sequence[Column], last: Sequence[Column]
) -> None:
    """Print a table with a column for each run, in halves (and halves of them) when it is too wide."""
    columns = [*first, *runs, *last]
    if len(runs) > 1 and table_width(rows, columns) > terminal_width():
        middle = (len(runs) + 1) // 2
        for part in (runs[:middle], runs[middle:]):
            _print_portions(rows, first, part, last)
        return
    print_table(rows, columns)
    print()
