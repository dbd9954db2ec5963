"""Run, sweep and study directories for tests of reports, written by hand: no training, no torch."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENT = {"python": "3.11.7", "optexp": "0.1.0", "torch": "2.12.1", "processor": "a processor", "cpus": 2}


def write_run(path: Path, status: str = "completed", quality: float = 1.0, seed: int = 0, **optimizer: Any) -> Path:
    """Write a run of 100 steps whose losses fall to about 2.3 exp(-3 quality); a diverged one explodes at step 60."""
    path.mkdir(parents=True)
    random_numbers = random.Random(f"{seed} {quality}")
    config = {
        "model": {"_target_": "optexp.models.mlp.MLP", "hidden": [8]},
        "dataset": {"_target_": "optexp.datasets.digits.digits", "batch_size": 32},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, **optimizer},
        "seed": seed,
        "name": None,
        "output_dir": "outputs",
    }
    (path / "config.yaml").write_text("# resolved\n" + yaml.safe_dump(config, sort_keys=False))
    rows: list[dict[str, float | None]] = []
    for step in [1, *range(10, 101, 10)]:
        loss: float | None = 2.3 * math.exp(-quality * step / 33) * (1 + 0.1 * random_numbers.random())
        if status == "diverged" and step >= 50:
            loss = 1e12 if step == 50 else None
        row = {"step": step, "epoch": step / 40, "time": step / 100, "train/loss": loss, "optim/lr": 0.1}
        rows.append(row | {"optim/grad_norm": 1.0 / step, "optim/effective_lr": 1.0, "optim/update_ratio": 0.01})
        if loss is None:
            break
        if step % 20 == 0:
            accuracy = 1 - 0.4 * min(loss, 2.3)
            rows.append(
                {"step": step, "epoch": step / 40, "time": step / 100, "val/loss": 1.1 * loss, "val/accuracy": accuracy}
            )
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    latest = {tag: value for row in rows for tag, value in row.items() if "/" in tag}
    ended_well = status in ("completed", "early_stopped")
    info = {
        "status": status,
        "reason": {"diverged": "train/loss is nan at step 60", "failed": "killed by SIGKILL"}.get(status),
        "last_step": 100 if ended_well else 59,
        "total_steps": 100,
        "wall_time": 1.5,
        "metrics": latest,
        "best": {"metric": "val/loss", "value": latest["val/loss"], "step": 100} if ended_well else None,
        "command": "optexp model=mlp optimizer=sgd",
        "started": "2026-01-31T12:00:00+00:00",
        "finished": "2026-01-31T12:00:02+00:00",
        "sessions": [{"command": "optexp model=mlp optimizer=sgd"}],
        "notes": ["weight decay 0 on 3 tensors"],
        "seed": seed,
        "overrides": ["model=mlp", "optimizer=sgd"],
        "choices": {"model": "mlp", "dataset": "digits", "optimizer": "sgd", "experiment": None},
        "config_hash": "0123456789ab",
        "device": "cpu (1 thread)",
        "environment": ENVIRONMENT,
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "data": {"source": "made up", "sizes": {"train": 10, "val": 5}, "fingerprints": {"train": "aa", "val": "bb"}},
        "model": {"parameters": 1234},
        "baselines": {"bigram cross-entropy": 0.5},
    }
    (path / "run.json").write_text(json.dumps(info))
    return path


def write_sweep(path: Path, members: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> Path:
    """Write a sweep: each member has its values of the swept keys, and `status` and `quality` where not usual.

    A member whose status is "not started" has no directory.
    """
    path.mkdir(parents=True)
    entries = []
    for number, member in enumerate(members):
        values = {key: member[key] for key in swept}
        directory = f"{number}-" + ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
        status = str(member.get("status", "completed"))
        if status != "not started":
            optimizer = {key.removeprefix("optimizer."): value for key, value in member.items() if "optimizer." in key}
            write_run(path / directory, status, member.get("quality", 1.0), int(values.get("seed", 0)), **optimizer)
        overrides = [f"{key}={value}" for key, value in values.items()]
        entries.append(
            {"number": number, "overrides": overrides, "directory": directory, "swept": values, "status": status}
        )
    command = ["optexp", "-m", "model=mlp", *(f"{key}=…" for key in swept)]
    record = {"command": command, "swept": list(swept), "members": entries, "status": "completed"}
    (path / "sweep.json").write_text(json.dumps(record))
    return path


def grid(seeds: int = 3, lost: Mapping[float, str] | None = None) -> list[dict[str, Any]]:
    """Return the members of a sweep over three learning rates, two weight decays and seeds; the best lr is 0.1."""
    quality = {0.01: 0.3, 0.1: 1.0, 1.0: 0.6}
    return [
        {
            "optimizer.lr": lr,
            "optimizer.weight_decay": decay,
            "seed": seed,
            "quality": good - 100 * decay,
            "status": (lost or {}).get(lr, "completed"),
        }
        for (lr, good), decay, seed in product(quality.items(), (0.0, 1e-4), range(seeds))
    ]


def write_study(path: Path) -> Path:
    """Write a study of three arms and four seeds with one answer of each verdict, and its final stage."""
    arms = {"exp1": 1.0, "exp2": 0.05, "repaired": 1.1}
    members: list[dict[str, Any]] = [
        {"arm": arm, "point": "", "seed": seed, "quality": quality, "optimizer.lr": quality / 10}
        for arm, quality in arms.items()
        for seed in range(4)
    ]
    members[5] |= {"status": "diverged"}
    write_sweep(path / "final", members, ["arm", "point", "seed"])
    record = {
        "study": "exp1_vs_exp2",
        "question": "Does Exp1 train where Exp2 does not?",
        "claim": ["C1", "C3"],
        "source": "000",
        "limits": "Digits are small and easy; a larger data set may need other learning rates.",
        "command": "optexp study=exp1_vs_exp2 model=mlp",
        "words": ["model=mlp"],
        "definition": "question: Does Exp1 train where Exp2 does not?\nseeds: 4\n",
        "stages": {"final": {"directory": "final"}},
        "chosen": {"exp1": ["experiment=exp1_adam_B32"], "exp2": ["experiment=exp2_sgd_B32", "optimizer.lr=0.0001"]},
        "measured": {
            "exp1": {"accuracy": [0.95, 0.96, 0.94, 0.955], "steps_to_90": [60, 64, 58, 61]},
            "exp2": {"accuracy": [0.12, None, 0.2, 0.15], "steps_to_90": [1000, 1000, 1000, 1000]},
            "repaired": {"accuracy": [0.98, 0.985, 0.975, 0.98], "steps_to_90": [40, 44, 38, 41]},
        },
        "answers": {
            "trains": {
                "statement": "Exp1 trains and Exp2 does not",
                "effect": "exp1.accuracy - exp2.accuracy",
                "unit": "accuracy",
                "smallest": 0.2,
                "supported_if": "above",
                "interval": {"estimate": 0.79, "low": 0.70, "high": 0.88, "level": 0.9833, "n": 4, "method": "t"},
                "per_seed": [0.83, 0.80, 0.74, 0.805],
                "verdict": "supported",
                "text": "The same code trains with Adam and stays at chance with the broken SGD.",
            },
            "speed": {
                "statement": "Adam is faster than the repaired SGD",
                "effect": "exp1.steps_to_90 - repaired.steps_to_90",
                "unit": "steps",
                "smallest": -5,
                "supported_if": "below",
                "interval": {"estimate": 20.0, "low": 16.0, "high": 24.0, "level": 0.9833, "n": 4, "method": "t"},
                "per_seed": [20, 20, 20, 20],
                "verdict": "refuted",
                "text": "The repaired SGD is faster: it needs fewer steps to 90 %.",
            },
            "coefficient": {
                "statement": "Only a tenth of the gradient enters the buffer",
                "effect": "gradient_share{'optimizer': {'name': 'SGD', 'momentum': 0.9}, 'betas': [0.9, 0.99]}",
                "unit": "",
                "smallest": 0.5,
                "supported_if": "below",
                "interval": {"estimate": 0.1, "low": 0.1, "high": 0.1, "level": 1.0, "n": 1, "method": "exact"},
                "per_seed": [],
                "verdict": "supported",
                "text": "The coefficient is as claimed.",
            },
            "open": {
                "statement": "The repaired run generalizes better",
                "effect": "repaired.accuracy - exp1.accuracy",
                "unit": "accuracy",
                "smallest": 0.02,
                "supported_if": "above",
                "interval": None,
                "per_seed": [],
                "verdict": "inconclusive",
                "text": "A run diverged; more seeds would settle it.",
            },
        },
        "versions": {"scipy": "1.17.1"},
        "seconds": 83.2,
        "status": "completed",
    }
    (path / "study.json").write_text(json.dumps(record))
    return path
