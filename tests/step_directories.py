"""Run directories whose steps are products of known factors, written by hand: no training, no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

STEPS = (1, *range(10, 101, 10))


@dataclass(frozen=True)
class Group:
    """One parameter group: norm of its weights, and per step gradient/weight and what the rule makes of it."""

    weight: float = 10.0
    gradient: float = 0.05
    direction: float = 0.5
    weight_decay: float = 0.0
    numbers: int = 1000


def write_steps(
    path: Path,
    groups: Sequence[Group] = (Group(),),
    target: str = "torch.optim.SGD",
    schedule: Mapping[int, float] | None = None,
    clip_norm: float | None = None,
    old: bool = False,
    probed: Sequence[int] = (40,),
    **optimizer: Any,
) -> Path:
    """Write a run of 100 steps. `schedule` has factors of the learning rate; `old` leaves out the ledger's own tags.

    The gradient of step s is 1 + s/100 times that of the groups. An effective learning rate is probed as 1 % above the
    closed form.
    """
    path.mkdir(parents=True)
    settings = {"lr": 0.1, **optimizer}
    momentum = settings.get("momentum", 0.0)
    amplified = (1 - settings.get("dampening", 0.0)) / (1 - momentum) if momentum and target.endswith("SGD") else 1.0
    rows = []
    for step in STEPS:
        lr = settings["lr"] * (schedule or {}).get(step, 1.0)
        gradients = [group.weight * group.gradient * (1 + step / 100) for group in groups]
        norm = math.hypot(*gradients)
        clip = min(1.0, clip_norm / norm) if clip_norm else 1.0
        updates = [lr * amplified * clip * g * group.direction for g, group in zip(gradients, groups, strict=True)]
        weights = [group.weight for group in groups]
        row: dict[str, float | None] = {"step": step, "epoch": step / 50, "time": step / 10, "train/loss": 1.0}
        row |= {"optim/lr": lr, "optim/effective_lr": lr * amplified, "optim/grad_norm": norm}
        row |= {
            "optim/weight_norm": math.hypot(*weights),
            "optim/update_ratio": math.hypot(*updates) / math.hypot(*weights),
        }
        if not old:
            row |= {"optim/clip_coefficient": clip} if clip_norm else {}
            for index, (gradient, update, group) in enumerate(zip(gradients, updates, groups, strict=True)):
                row[f"ledger/group{index}/gradient"] = math.log10(gradient / group.weight)
                row[f"ledger/group{index}/update"] = math.log10(update / group.weight)
                row[f"ledger/group{index}/direction"] = math.log10(group.direction)
                if step in probed:
                    row[f"ledger/group{index}/unexplained"] = 1e-6 * (-1) ** index * (1 + index)
            if step in probed:
                row["probe/effective_lr"] = 1.01 * lr * amplified
                row["probe/decay_ratio"] = 0.25
        rows.append(row)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "optimizer": {"_target_": target, **settings},
        "engine": {"clip_norm": clip_norm, "decay_norm_and_bias": len(groups) == 1},
        "schedule": {"_target_": "optexp.schedules.Cosine" if schedule else "optexp.schedules.Constant"},
        "seed": 0,
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    info: dict[str, Any] = {"status": "completed", "started": "2026-01-31T12:00:00+00:00", "last_step": 100}
    if not old:
        info["parameter_groups"] = [
            {"tensors": 2, "numbers": group.numbers, "weight_decay": group.weight_decay} for group in groups
        ]
    (path / "run.json").write_text(json.dumps(info))
    return path
