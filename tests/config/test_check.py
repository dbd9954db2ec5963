"""Rules that need no torch, compared with torch where torch has the same rule."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
import pytorch_optimizer
import torch

from optexp.config.check import check, total_steps
from optexp.config.compose import Composer
from optexp.config.schema import Engine
from optexp.errors import BadInput


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return Composer().compose([]).config


def changed(base: dict[str, Any], **nodes: Any) -> dict[str, Any]:
    """Return a copy of a configuration in which keys of groups, or whole top-level keys, have other values."""
    config = copy.deepcopy(base)
    for key, value in nodes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key].update(value)
        else:
            config[key] = value
    return config


def refusal(config: dict[str, Any], overridden: tuple[str, ...] = ()) -> str | None:
    """Return the error of a configuration, or None when it passes."""
    try:
        check(config, {}, overridden)
    except BadInput as error:
        return str(error)
    return None


def test_the_shipped_configuration_passes_and_gives_engine_settings(base: dict[str, Any]) -> None:
    assert check(base, {}) == Engine()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"seed": -1}, "seed=-1: allowed is an integer in [0, "),
        ({"seed": 2**63}, f"seed={2**63}: allowed is an integer in [0, "),
        ({"seed": 1.0}, "seed=1.0: allowed is an integer"),
        ({"name": 3}, "name=3: allowed is a string or null"),
        ({"output_dir": None}, "output_dir=null: allowed is a string"),
        ({"output_dir": ""}, "output_dir=: allowed is the name of a folder"),
        ({"trust": "mine"}, "trust=mine: allowed is a list, each a string"),
        ({"trust": ["mine"]}, "trust=['mine']: is set in a file; allowed is the command line only"),
        ({"sede": 1}, "sede=1: no such key (did you mean 'seed'?); there are model, dataset, "),
        ({"experiment": {"seed": 1}}, "experiment: its file must begin with the line '# @package _global_'"),
        ({"model": None}, "model: nothing is chosen; a run needs model=…"),
        ({"task": 3}, "task: nothing is chosen"),
        ({"task": {"name": "trian"}}, "task.name=trian: no such task; there are "),
        ({"dataset": {"batch_size": 0}}, "dataset.batch_size=0: allowed is an integer ≥ 1 or full"),
        ({"dataset": {"batch_size": "half"}}, "dataset.batch_size=half: allowed is an integer ≥ 1 or full"),
        ({"dataset": {"batch_size": 1.5}}, "dataset.batch_size=1.5: allowed is"),
        ({"engine": {"epochs": 0}}, "engine.epochs=0: allowed is"),
        ({"schedule": {"warmup_steps": -1}}, "schedule.warmup_steps=-1: must be at least 0"),
        ({"schedule": {"unit": "week"}}, "schedule.unit=week: allowed is one of step, epoch"),
        ({"schedule": {"T_maxx": 1}}, "schedule.T_maxx=1: Cosine takes no 'T_maxx' (did you mean 'T_max'?)"),
        (
            {"schedule": {"_target_": "optexp.schedules.Cosin"}},
            "has no 'Cosin' (did you mean 'Cosine'?)",
        ),
        (
            {"optimizer": {"foreach": True, "fused": True}},
            "optimizer.foreach=true and optimizer.fused=true: ",
        ),
        ({"optimizer": {"differentiable": True}}, "optimizer.differentiable=true: a training step updates in place"),
        ({"optimizer": {"differentiable": 0}}, "optimizer.differentiable=0: allowed is false"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_its_value(base: dict[str, Any], nodes: dict[str, Any], message: str) -> None:
    assert message in (refusal(changed(base, **nodes)) or "accepted")


def test_trust_is_accepted_from_the_command_line_only(base: dict[str, Any]) -> None:
    assert refusal(changed(base, trust=["mine"]), ("optimizer.lr", "trust")) is None


def test_a_key_of_a_group_that_the_task_does_not_read_is_refused(base: dict[str, Any]) -> None:
    config = changed(base, task={"reads": ["model", "dataset"]})
    assert refusal(config, ("model.depth", "dataset", "seed")) is None
    message = refusal(config, ("seed", "optimizer.lr")) or ""
    assert message.startswith("optimizer.lr: task=train does not use the group 'optimizer'; it reads model, dataset")
    assert refusal(config, ("schedule",)) is not None


def torch_takes(target: type[torch.optim.Optimizer], arguments: dict[str, Any]) -> bool:
    try:
        target([torch.zeros(1, requires_grad=True)], **arguments)
    except (ValueError, RuntimeError):
        return False
    return True


SGD_GRID = itertools.product(
    (-0.1, 0.0, 0.1), (-0.5, 0.0, 0.9, 1.0), (-0.1, 0.0, 0.5, 1.0, 1.5), (-1e-4, 0.0, 1e-4), (False, True)
)


@pytest.mark.parametrize("target", ["torch.optim.SGD", "torch.optim.sgd.SGD"])
def test_sgd_is_refused_where_torch_refuses_it(base: dict[str, Any], target: str) -> None:
    names = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    ours_only = []
    for point in SGD_GRID:
        arguments = dict(zip(names, point, strict=True))
        message = refusal(changed(base, optimizer={"_target_": target, **arguments}))
        if not torch_takes(torch.optim.SGD, arguments):
            assert message is not None, f"torch refuses {arguments}"
        elif message is not None:
            ours_only.append(arguments)
    # torch takes these, although the update then grows without bound (momentum >= 1) or changes its sign
    assert all(a["momentum"] >= 1 or not 0 <= a["dampening"] <= 1 for a in ours_only)
    assert all(refusal(changed(base, optimizer={**a, "_target_": target})) for a in ours_only)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Adam", {"betas": [0.9, 1.0]}),
        ("Adam", {"betas": [-0.1, 0.9]}),
        ("Adam", {"eps": -1e-8}),
        ("AdamW", {"weight_decay": -0.01}),
        ("RMSprop", {"alpha": -0.1}),
        ("RMSprop", {"momentum": -0.1}),
        ("Adagrad", {"lr_decay": -0.1}),
        ("Adagrad", {"initial_accumulator_value": -1.0}),
        ("Adagrad", {"eps": -1e-10}),
    ],
)
def test_ranges_are_those_of_torch(base: dict[str, Any], name: str, arguments: dict[str, Any]) -> None:
    assert not torch_takes(getattr(torch.optim, name), arguments)
    (key,) = arguments
    node = {"optimizer": {"_target_": f"torch.optim.{name}", "lr": 0.1, **arguments}}
    assert (refusal({**base, **node}) or "accepted").startswith(f"optimizer.{key}=")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1, "-1"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("0.1", "0.1"),
        (True, "true"),
        ([0.1], "[0.1]"),
    ],
)
@pytest.mark.parametrize("target", ["torch.optim.SGD", "pytorch_optimizer.Lion", "mine.Optimizer"])
def test_a_learning_rate_is_a_finite_number_in_every_optimizer(
    base: dict[str, Any], target: str, value: Any, shown: str
) -> None:
    message = refusal({**base, "optimizer": {"_target_": target, "lr": value}}) or "accepted"
    assert message.startswith(f"optimizer.lr={shown}: allowed is a finite number ≥ 0")


def optimizer_classes() -> Iterator[tuple[str, type[torch.optim.Optimizer]]]:
    for module in (torch.optim, pytorch_optimizer):
        for name in dir(module):
            candidate = getattr(module, name)
            if isinstance(candidate, type) and issubclass(candidate, torch.optim.Optimizer):
                yield f"{module.__name__}.{name}", candidate


def test_the_defaults_of_every_optimizer_pass(base: dict[str, Any]) -> None:
    """A YAML file that spells out an optimizer's own defaults must never be refused."""
    refused, count = [], 0
    for target, optimizer in optimizer_classes():
        defaults = {
            name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            for name, parameter in inspect.signature(optimizer).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        count += 1
        message = refusal({**base, "optimizer": {"_target_": target, **defaults}})
        if message:
            refused.append(f"{target}: {message}")
    assert refused == []
    assert count > 100


@pytest.mark.parametrize("epochs", ["1", "5", "0.5", "0.1", "2.7"])
@pytest.mark.parametrize(("samples", "batch"), [(1257, 32), (96, 32), (10, 3), (7, 7)])
def test_a_run_of_some_epochs_sees_every_sample_of_them(epochs: str, samples: int, batch: int) -> None:
    exact = Fraction(epochs) * Fraction(samples, batch)
    assert total_steps(Engine(epochs=float(epochs)), samples / batch) == math.ceil(exact)


def test_max_steps_goes_before_epochs() -> None:
    assert total_steps(Engine(epochs=5, max_steps=3), 100.0) == 3
