"""A table of optimizers as text: for the terminal, as Markdown, as CSV. Every form has the numbers of `table_of`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from optexp.records.numbers import setting
from optexp.report.tables import Column, print_table

Row = Mapping[str, Any]


def headings(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that people see, key to heading with its unit."""
    quantity = table["metric"].removeprefix("val/")
    side = "≤" if table["lower_is_better"] else "≥"
    target = "the target" if table["target"] is None else f"{quantity} {side} {table['target']:.3g}"
    return {
        "optimizer": "optimizer",
        "lr": "best lr",
        "state": "state B/param",
        "peak": "peak B/param",
        "time": "time × SGD",
        "steps": f"steps to {target}",
        "final": f"final val {quantity}",
        "window": "lr window, decades",
    }


def cells(row: Row, seeds: int) -> dict[str, str]:
    """Return the texts of a row; a dash where there is nothing to measure."""
    time, final, window = row["time_ratio"], row["final"], row["window"]
    steps = "-" if row["steps_to_target"] is None else f"{row['steps_to_target']:g}"
    if row["reached"] < seeds:
        steps += f" ({row['reached']}/{seeds} seeds)"
    return {
        "optimizer": row["optimizer"],
        "lr": "-" if row["lr"] is None else setting(float(f"{row['lr']:.3g}")),
        "state": _bytes(row["state_bytes_per_parameter"]),
        "peak": _bytes(row["peak_bytes_per_parameter"]),
        "time": "-" if time is None else _ratio(time),
        "steps": steps,
        "final": "-" if final is None else f"{final['estimate']:.3f} ± {(final['high'] - final['low']) / 2:.3f}",
        "window": "-" if window is None else f"{'≥ ' * _is_open(window)}{window['decades']:.1f}",
    }


def _bytes(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _ratio(time: Mapping[str, float]) -> str:
    if time["low"] == time["high"]:  # the reference itself
        return f"{time['median']:.2f}"
    return f"{time['median']:.2f} ({time['low']:.2f} to {time['high']:.2f})"


def _is_open(window: Mapping[str, Any]) -> bool:
    return bool(window["open_low"] or window["open_high"])


def print_results(table: Mapping[str, Any]) -> None:
    """Print the table, the remarks on its rows, and what each column says."""
    columns = [
        Column(key, title, text=str, numeric=key != "optimizer", optional={"peak": 2, "lr": 1}.get(key, 0))
        for key, title in headings(table).items()
    ]
    print()
    print_table([cells(row, len(table["seeds"])) for row in table["optimizers"]], columns)
    print()
    for line in (*remarks(table), *definitions(table)):
        print(line)
    print()


def remarks(table: Mapping[str, Any]) -> list[str]:
    """Return a line for each optimizer that has something to be said."""
    return [f"{row['optimizer']}: {'; '.join(row['remarks'])}" for row in table["optimizers"] if row["remarks"]]


def definitions(table: Mapping[str, Any]) -> list[str]:
    """Return what the columns say and how they were measured, a sentence or two each."""
    made, quantity = table["setting"], table["metric"].removeprefix("val/")
    chosen = ""
    if table["target_tolerance"] is not None:
        chosen = f", {_share(table, table['target_tolerance'])} the best final mean of all"
    grid = f"{table['rates']} learning rates {setting(1 / table['rates_per_decade'])} decades apart"
    tuning, judged = (len(table[key]) for key in ("tuning_seeds", "seeds"))
    return [
        f"trained: {made['model']} ({made['parameters']:,} parameters) on {made['dataset']}, {made['steps']:,} steps "
        f"of {made['batch_size']}, schedule {made['schedule']}, {made['device']}; {table['runs']} runs.",
        f"tuning: each optimizer alike, {grid} around the lr of its entry in conf/optimizer (two more at a time where "
        f"a best one lay on an edge), by final val {quantity} over {tuning} seeds that are not judged; weight decay "
        "and all else as in the entry.",
        "state: all tensors of the optimizer's state, in bytes per parameter. "
        "peak: the most that is allocated during a step beyond weights and gradients, with state, activations of the "
        f"batch and temporaries, {_meter(made['device'])}.",
        "time: a whole step (forward, backward, update) over that of SGD without momentum, in turns in one process: "
        f"median of {table['repeats']} ratios and quartiles.",
        f"steps: median over {judged} seeds until val {quantity} first reaches the target{chosen}; evaluated every "
        f"{table['eval_every']} steps.",
        f"final: mean over {judged} seeds at the end of the run, with its {table['level']:.0%} t interval.",
        f"lr window: log10 of the largest over the smallest lr around the best one with a final val {quantity} within "
        f"{_share(table, table['tolerance'])} its best, tuning seeds, linear in log10 lr between grid points; ≥ where "
        "the grid ends first.",
    ]


def _share(table: Mapping[str, Any], tolerance: float) -> str:
    return f"{1 + tolerance if table['lower_is_better'] else 1 - tolerance:.3g} ×"


def _meter(device: str) -> str:
    on_cpu = "cpu" in device.lower()
    return "by the profiler's allocation events" if on_cpu else "by CUDA's caching allocator"


def to_markdown(table: Mapping[str, Any]) -> str:
    """Return the table with remarks and definitions below."""
    columns = headings(table)
    rows = [cells(row, len(table["seeds"])) for row in table["optimizers"]]
    lines = [pipe_row(columns.values()), pipe_row("---" if key == "optimizer" else "---:" for key in columns)]
    lines += [pipe_row(row[key] for key in columns) for row in rows]
    below = [f"- {line}" for line in (*remarks(table), *definitions(table))]
    return "\n".join([*lines, "", *below])


def pipe_row(texts: Sequence[str] | Any) -> str:
    """Return cells as a row of a Markdown table."""
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def to_csv(table: Mapping[str, Any]) -> str:
    """Return a line of plain numbers for every optimizer; empty where there is nothing to measure."""
    rows = [_flat(row) for row in table["optimizers"]]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    time, final, window = row["time_ratio"] or {}, row["final"] or {}, row["window"] or {}
    return {
        "optimizer": row["optimizer"],
        "lr": row["lr"],
        "default_lr": row["default_lr"],
        "state_bytes_per_parameter": row["state_bytes_per_parameter"],
        "peak_bytes_per_parameter": row["peak_bytes_per_parameter"],
        "seconds_per_step": row["seconds_per_step"],
        "time_ratio": time.get("median"),
        "time_ratio_low": time.get("low"),
        "time_ratio_high": time.get("high"),
        "steps_to_target": row["steps_to_target"],
        "seeds_that_reached_it": row["reached"],
        "final": final.get("estimate"),
        "final_low": final.get("low"),
        "final_high": final.get("high"),
        "window_decades": window.get("decades"),
        "window_low": window.get("low"),
        "window_high": window.get("high"),
        "window_is_open": _is_open(window) if window else None,
        "remarks": "; ".join(row["remarks"]),
    }
