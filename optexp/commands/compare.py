"""optexp compare: what differs between runs, in their configs and in their results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optexp.commands import Parser, check_output_file
from optexp.errors import BadInput, StorageError
from optexp.records.console import OUTCOME_STYLES, STATUS_STYLES, relative
from optexp.records.numbers import duration, measured, setting
from optexp.records.reading import ABSENT, Run, differences, find_runs
from optexp.report.effective_rate import differing_effective_lr, single_effective_lr
from optexp.report.grouping import LOST, SEED, lower_is_better, mean_of
from optexp.report.tables import Column, fitting, print_table, table_width, terminal_width

MOST_RUNS = 6
"""Of more runs than these, those that differ in nothing but their seed are averaged."""

PAGE = 120
"""Characters in a line for a pipe, which has no width of its own."""

Group = Sequence[Run]
"""Runs that are shown as one: a single run, or those of one setting with their seeds."""


def main(argv: list[str]) -> int:
    """Print config differences and metrics side by side, and draw the curves if asked to; return the exit status.

    Many runs are shown as means over seeds where only the seed differs. Raises BadInput when a folder does not exist or
    there are no two runs to compare, StorageError when the picture cannot be written.
    """
    parser = Parser(
        "compare",
        "Show what differs between runs: their configs, their results, and with --png their curves in a picture.",
        "  optexp compare outputs/runs/2026-01-31/120000-exp2_sgd_B32 outputs/runs/2026-01-31/120100-exp1_adam_B32\n"
        "  optexp compare outputs/sweeps/2026-01-31/120000-digits-resnet-sgd --png lr.png",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="run directories, or folders of them")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the curves and write them there")
    arguments = parser.parse_args(argv)
    if arguments.png is not None:
        check_output_file("--png", arguments.png)
    found = {run.path.resolve(): run for folder in arguments.folders for run in find_runs(folder)}
    runs = list(found.values())
    if len(runs) < 2:
        shown = " ".join(map(str, arguments.folders))
        raise BadInput(f"compare: found {len(runs)} run{'s' * (not runs)} in {shown}, needs at least two")
    groups = grouped(runs)
    labels = [letters(index) for index in range(len(groups))]
    _print_runs(groups, labels)
    if len(groups) < len(runs):
        print("means over seeds, ± half of their 95 % interval; a run that diverged or failed is not part of them")
    _print_comparison(config_rows(groups, labels), result_rows(groups, labels), labels)
    if arguments.png is None:
        print("curves: --png FILE draws them")
    else:
        _draw(groups, arguments.png, labels)
    return 0


def _draw(groups: Sequence[Group], file: Path, labels: Sequence[str]) -> None:
    """Draw the curves and say where. Raises StorageError when the picture cannot be written."""
    from optexp.report.figures import curves

    try:
        curves(groups, file, labels)
    except OSError as error:
        raise StorageError(f"--png {file}: cannot be written ({error.strerror})") from error
    print(f"curves: {relative(file)}")


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Return few runs as they are, and many in groups that differ in nothing but their seed."""
    if len(runs) <= MOST_RUNS:
        return [[run] for run in runs]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = repr(sorted((key, repr(value)) for key, value in run.settings.items() if key != SEED))
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _print_runs(groups: Sequence[Group], labels: Sequence[str]) -> None:
    """Print which run has which label, its end and outcome, and below them what was remarked about runs."""
    rows: list[dict[str, Any]] = [
        {
            "": label,
            "run": run,
            "status": run.status,
            "outcome": run.info.get("outcome") or "",
            "reason": run.info.get("reason") or "",
        }
        for label, group in zip(labels, groups, strict=True)
        for run in group
    ]
    folders = {row["run"].path.resolve().parent for row in rows}
    if len(folders) == 1:
        print(f"in {relative(folders.pop())}")
    columns = [
        Column(""),
        Column("run", text=lambda run: relative(run.path) if folders else run.name),
        Column("status", style=lambda status: STATUS_STYLES.get(status, "")),
    ]
    beside = [
        Column("outcome", style=lambda outcome: OUTCOME_STYLES.get(outcome, "red")),
        Column("reason", optional=1),
    ]
    print_table(rows, [*columns, *(column for column in beside if any(row[column.key] for row in rows))])
    print()
    remarks = {f"  {row['']}  {row['run'].config['remark']}": None for row in rows if row["run"].config.get("remark")}
    if remarks:
        print("\n".join(["remarks", *remarks]) + "\n")


def letters(index: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for 0, 1, ..."""
    return (letters(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def config_rows(groups: Sequence[Group], labels: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per setting that differs: its key under `config`, and the text of its value under each label.

    Below the settings stand the effective learning rate, where it is another than lr, the code, the device and the
    torch version, each where it differs. The seeds of groups with several runs are left out.
    """
    firsts, rows = [group[0] for group in groups], []
    for key, values in differences(firsts).items():
        if key == SEED and any(len(group) > 1 for group in groups):
            continue
        if key.endswith("._target_"):  # the class alone says it: optimizer SGD, AdamW
            key, values = key.removesuffix("._target_"), [str(value).rpartition(".")[2] for value in values]
        rows.append({"config": key} | dict(zip(labels, map(setting, values), strict=True)))
    rates = [_rate(run) for run in firsts]
    if len(set(rates)) > 1 and any(differing_effective_lr(run) is not None for run in firsts):
        rows.append({"config": "(effective lr)"} | dict(zip(labels, rates, strict=True)))
    for key, find in {
        "(code)": lambda run: _commit(run.info.get("git")),
        "(device)": lambda run: str(run.info.get("device") or ABSENT),
        "(torch)": lambda run: str((run.info.get("environment") or {}).get("torch") or ABSENT),
    }.items():
        texts = [" ".join(dict.fromkeys(map(find, group))) for group in groups]
        if len(set(texts)) > 1:
            rows.append({"config": key} | dict(zip(labels, texts, strict=True)))
    return rows


def _rate(run: Run) -> str:
    rate = single_effective_lr(run)
    return ABSENT if rate is None else setting(rate)


def _commit(git: Mapping[str, Any] | None) -> str:
    return git["commit"][:8] + "+changes" * bool(git["dirty"]) if git else ABSENT


def result_rows(groups: Sequence[Group], labels: Sequence[str]) -> list[dict[str, str]]:
    """Return one row per result, with the label of the best group under `best` where better has a meaning."""

    def row(name: str, texts: Sequence[str], best: str = "") -> dict[str, str]:
        return {"result": name, **dict(zip(labels, texts, strict=True)), "best": best}

    runs = [run for group in groups for run in group]
    rows, are_means = [], len(runs) > len(groups)
    if are_means:
        rows.append(row("seeds", [str(len(group)) for group in groups]))
        if any(run.status in LOST for run in runs):
            rows.append(row("lost", [str(sum(run.status in LOST for run in group)) for group in groups]))
    ends = [sorted({run.last_step for run in group}) for group in groups]
    rows.append(row("steps", [" to ".join(map(setting, dict.fromkeys([end[0], end[-1]]))) for end in ends]))
    rows.append(row("wall time", [duration(math.fsum(run.wall_time for run in g) / len(g)) for g in groups]))
    tags = dict.fromkeys(tag for run in runs for tag in run.metrics if tag.startswith(("train/", "val/", "test/")))
    for tag in tags:
        values = [_values(group, tag) for group in groups]
        rows.append(row(tag, list(map(_mean_text, values)), _best(tag, groups, values, labels)))
    summits = [[best for run in group if (best := run.info.get("best"))] for group in groups]
    if any(summits):
        texts = [_mean_text([best["value"] for best in found]) for found in summits]
        steps = [f" @ {found[0]['step']}" if found and not are_means else "" for found in summits]
        name = f"best {next(best['metric'] for found in summits for best in found)}"
        rows.append(row(name, [text + step for text, step in zip(texts, steps, strict=True)]))
    return rows


def _values(group: Group, tag: str) -> list[float]:
    """Return the values of a metric that count: of several runs, those that diverged or failed have none."""
    counting = [run for run in group if len(group) == 1 or run.status not in LOST]
    values = [run.metrics[tag] for run in counting if tag in run.metrics]
    return [math.nan if value is None else value for value in values]


def _mean_text(values: Sequence[float]) -> str:
    """Return `0.1108 ± 0.0444`, a single value as it is, nothing where there is none."""
    if len(values) < 2:
        return "".join(map(measured, values))
    mean = mean_of(values)
    return measured(mean.mean) + (f" ± {measured(mean.high - mean.mean)}" if mean.high is not None else "")


def _best(tag: str, groups: Sequence[Group], values: Sequence[Sequence[float]], labels: Sequence[str]) -> str:
    """Return the labels of the groups with the best mean of a metric: the lowest loss, the highest of any other.

    A run that was lost is never best, nor is a group that lost one: a diverged run's last value is from before it did,
    and the mean of survivors flatters. Nor is there a best of different data sets.
    """
    means = [
        math.nan if any(run.status in LOST for run in group) or not found else math.fsum(found) / len(found)
        for group, found in zip(groups, values, strict=True)
    ]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite or len({run.choice("dataset") for group in groups for run in group}) > 1:
        return ""
    best = min(finite) if lower_is_better(tag) else max(finite)
    return " ".join(label for label, mean in zip(labels, means, strict=True) if mean == best)


def _print_comparison(
    settings: Sequence[Mapping[str, str]], results: Sequence[Mapping[str, str]], labels: Sequence[str]
) -> None:
    """Print one column per run where they all fit side by side, else one line per run, else columns in portions."""
    width = terminal_width() if math.isfinite(terminal_width()) else PAGE
    runs = [Column(label, numeric=True) for label in labels]
    lines, columns = _one_line_per_run(settings, results, labels)
    needed = table_width(lines, [column for column in columns if not column.optional])
    if table_width(results, [Column("result"), *runs, Column("best")]) > width >= needed:
        while len(columns) > 1:  # what does not fit goes below
            kept = fitting(lines, columns, width)
            print_table(lines, kept)
            print()
            columns = [columns[0], *(column for column in columns if column not in kept)]
        return
    if settings:
        _print_portions(settings, [Column("config")], runs, [], width)
    else:
        print("the configs are the same\n")
    _print_portions(results, [Column("result")], runs, [Column("best")], width)


def _one_line_per_run(
    settings: Sequence[Mapping[str, str]], results: Sequence[Mapping[str, str]], labels: Sequence[str]
) -> tuple[list[dict[str, str]], list[Column]]:
    """Return a table of one line per run, with all settings and results, validation before others where not all fit."""
    columns = [Column(""), *(Column(row["config"], numeric=True) for row in settings)]
    for place, row in enumerate(results, 1):
        columns.append(Column(row["result"], numeric=True, optional=place + 100 * ("val/" not in row["result"])))
    lines = [{"": label} for label in [*labels, "best"]]
    for row in [*settings, *results]:
        for line in lines:
            line[row.get("config") or row["result"]] = row.get(line[""], "")
    return lines, columns


def _print_portions(
    rows: Sequence[Mapping[str, str]],
    first: Sequence[Column],
    runs: Sequence[Column],
    last: Sequence[Column],
    width: float,
) -> None:
    """Print a table with a column for each run, in halves (and halves of them) when it is too wide."""
    columns = [*first, *runs, *last]
    if len(runs) > 1 and table_width(rows, columns) > width:
        middle = (len(runs) + 1) // 2
        for part in (runs[:middle], runs[middle:]):
            _print_portions(rows, first, part, last, width)
        return
    print_table(rows, columns)
    print()
