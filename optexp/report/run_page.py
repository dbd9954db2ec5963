"""What the page of a run says."""

from __future__ import annotations

import math
from typing import Any

from optexp.diagnosis.causes import CAUSES
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.diagnosis.text import advice, headline
from optexp.records.numbers import duration, measured
from optexp.records.reading import Run
from optexp.records.run_directory import CONFIG_FILE
from optexp.report.figures.layers import layer_names, layer_panel, layer_profiles
from optexp.report.figures.learning import Points, points
from optexp.report.figures.panels import quantity_panel, run_panel
from optexp.report.parts import Gallery, Picture, provenance

QUANTITIES = (
    (("optim/lr", "optim/effective_lr"), "learning rate", "effective: lr · (1 − dampening) / (1 − momentum)"),
    (("optim/update_ratio",), "relative size of an update", "norm of the update over norm of the weights"),
    (("optim/grad_norm",), "gradient norm", "before clipping"),
)
LAYERS = (("grad_norm", "gradient norm by layer"), ("update_ratio", "relative update by layer"))


def run_content(run: Run) -> dict[str, Any]:
    """Return what the template of a run shows."""
    return {
        "name": run.path.resolve().name,
        "subtitle": subtitle([run]),
        "status": run.status,
        "reason": run.info.get("reason") or "",
        "progress": _progress(run),
        "diagnosis": _diagnosis(run),
        "tiles": _tiles(run),
        "pictures": _pictures(run),
        "metrics": _metrics(run),
        "notes": [str(note) for note in run.info.get("notes") or []],
        "model": _model(run),
        "overrides": [str(word) for word in run.info.get("overrides") or []],
        "config": _config_text(run),
        "command": str(run.info.get("command") or ""),
        "sessions": [str(session.get("command") or "") for session in (run.info.get("sessions") or [])[1:]],
        "provenance": provenance([run]),
    }


def subtitle(runs: list[Run]) -> str:
    """Return `resnet on digits with sgd`, with the parts in which all runs agree."""
    texts = []
    for group, word in (("model", ""), ("dataset", "on "), ("optimizer", "with ")):
        choices = {run.choice(group) for run in runs}
        if len(choices) == 1 and "" not in choices:
            texts.append(word + choices.pop())
    return " ".join(texts)


def _progress(run: Run) -> str:
    total = run.info.get("total_steps")
    steps = f"{run.last_step:,} of {total:,} steps" if total else f"{run.last_step:,} steps"
    return f"{steps} in {duration(run.wall_time)}"


def _diagnosis(run: Run) -> dict[str, Any] | None:
    """Return outcome, summary and findings of a run that ended by itself; None for others, and with nothing to say."""
    if run.status not in ("completed", "early_stopped", "diverged"):
        return None
    history = History.of_run(run)
    found = diagnose(history)
    if found.outcome == "trained" and not found.findings:
        return None
    findings = [
        {
            "headline": headline(finding),
            "meaning": CAUSES[finding.cause],
            "evidence": finding.evidence,
            "command": advice(finding, history),
        }
        for finding in found.findings
    ]
    return {"outcome": found.outcome, "summary": found.summary, "findings": findings}


def _model(run: Run) -> str:
    count = (run.info.get("model") or {}).get("parameters")
    return f"{count:,} parameters" if isinstance(count, int) else ""


def _baselines(run: Run) -> dict[str, float]:
    return {str(name): float(value) for name, value in (run.info.get("baselines") or {}).items() if value is not None}


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return (name, value, what it is to be compared with) of the main results."""
    tiles = []
    best = run.info.get("best")
    start = next((value for _, value in points(run, "train/loss")), math.nan)
    against = [f"{name} {measured(value)}" for name, value in _baselines(run).items()]
    if math.isfinite(start):
        against.append(f"train/loss began at {measured(start)}")
    if best:
        tiles.append(
            (f"best {best['metric']}", measured(best["value"]), "; ".join([f"at step {best['step']:,}", *against]))
        )
    accuracies = points(run, "val/accuracy")
    if accuracies:
        step, top = max(accuracies, key=lambda pair: (pair[1], -pair[0]))
        last = accuracies[-1][1]
        tiles.append(
            ("best val/accuracy", measured(top), f"at step {step:,.0f}; {measured(last)} at the last evaluation")
        )
    if not best and math.isfinite(start):
        tag = "val/loss" if points(run, "val/loss") else "train/loss"
        step, last = points(run, tag)[-1]
        tiles.insert(0, (f"last finite {tag}", measured(last), "; ".join([f"at step {step:,.0f}", *against])))
    tests = [tag for tag in ("test/loss", "test/accuracy") if run.metrics.get(tag) is not None]
    tiles += [(tag, measured(run.metrics[tag]), "test data") for tag in tests]
    return tiles


def _pictures(run: Run) -> list[Picture]:
    gallery, pictures = Gallery(), []
    for name in ("loss", "accuracy"):
        if points(run, f"train/{name}") or points(run, f"val/{name}"):
            figure = run_panel(run, name, _baselines(run) if name == "loss" else {})
            lost = ", a cross where it diverged" if run.status == "diverged" else ""
            pictures.append(
                gallery.picture(figure, f"{name} against the step", f"training thin, validation thick{lost}")
            )
    for tags, title, caption in QUANTITIES:
        there = [tag for tag in tags if points(run, tag)]
        if len(there) == 2 and _equal(points(run, there[0]), points(run, there[1])):
            there, caption = there[:1], ""  # an optimizer without momentum: the second line would hide the first
        if there:
            pictures.append(gallery.picture(quantity_panel(run, there, title), f"{title} against the step", caption))
    for quantity, title in LAYERS:
        profiles = layer_profiles(run, quantity)
        if any(value > 0 for _, values in profiles for value in values):
            names = layer_names(run, quantity)
            caption = f"1 is {names[0]}, {len(names)} is {names[-1]}"
            pictures.append(gallery.picture(layer_panel(profiles, title), f"{title} of every layer", caption))
    return pictures


def _equal(one: Points, other: Points) -> bool:
    """Return whether two lines are the same but for rounding."""
    values = zip(one, other, strict=False)
    return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-9) for (_, a), (_, b) in values)


def _metrics(run: Run) -> list[tuple[str, str]]:
    """Return the last value of every metric, results before the rest."""
    order = ("train", "val", "test")
    tags = sorted(run.metrics, key=lambda tag: (tag.partition("/")[0] not in order, tag))
    return [(tag, measured(run.metrics[tag])) for tag in tags]


def _config_text(run: Run) -> str:
    try:
        text = (run.path / CONFIG_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
