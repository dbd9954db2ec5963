"""Arguments that do not reach the optimizer: those of real scripts, with torch's own optimizers and schedulers."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_optimizer import Lion, Lookahead
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop, lr_scheduler

import optexp
from optexp.dropped_arguments import check
from optexp.errors import BadInput
from optexp.optimizers.muon import Muon


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]


def make_optimizer(name: str, params: Iterable[nn.Parameter], **kwargs: Any) -> Optimizer:
    """The helper of the post-mortem: what the chosen optimizer does not take disappears without a word."""
    if name == "adam":
        return Adam(params, lr=kwargs.get("sgd_lr", 1e-3), weight_decay=kwargs.get("sgd_weight_decay", 0.0))
    own = {key.removeprefix("sgd_"): value for key, value in kwargs.items() if key.startswith("sgd_")}
    return SGD(params, **own)


def found(optimizer: Any, requested: Any) -> list[tuple[str, str]]:
    return [(finding.kind, finding.key) for finding in check(optimizer, requested)]


POST_MORTEM = ["--sgd_lr", "1e-4", "--sgd_momentum", "0.9", "--sgd_dampening", "0.9", "--sgd_weight_decay", "1e-2"]


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    for name in ("lr", "momentum", "dampening", "weight_decay"):
        parser.add_argument(f"--sgd_{name}", type=float, default=0.0)
    return parser.parse_args(words)


def test_the_first_experiment_of_the_post_mortem() -> None:
    """Adam with sgd_dampening=0.9 trained, and it was concluded that dampening 0.9 trains."""
    args = arguments(POST_MORTEM)
    findings = optexp.check(make_optimizer(args.optimizer, parameters(), **vars(args)), requested=args)
    assert [str(finding) for finding in findings] == [
        "sgd_momentum=0.9: dropped, for Adam has no argument momentum (Muon, RMSprop, SGD have)",
        "sgd_dampening=0.9: dropped, for Adam has no argument dampening (SGD has)",
    ]
    assert str(findings).count("\n") == 1
    finding = findings[1]
    assert (finding.kind, finding.argument, finding.requested, finding.held) == ("dropped", "dampening", 0.9, ())
    args.optimizer = "sgd"
    findings = check(make_optimizer(args.optimizer, parameters(), **vars(args)), args)
    assert findings == []
    assert str(findings) == "every argument asked for has reached the optimizer"


def test_the_class_has_the_argument_and_the_helper_did_not_pass_it_on() -> None:
    args = arguments(POST_MORTEM)
    findings = check(Adam(parameters(), lr=args.sgd_lr), args)
    assert str(findings[-1]) == "sgd_weight_decay=0.01: not applied, for this Adam has weight_decay 0"
    assert (findings[-1].kind, findings[-1].held) == ("not applied", (0,))


@pytest.mark.parametrize(
    "key",
    [
        *("dampening", "--dampening", "sgd_dampening", "--sgd-dampening", "optimizer_dampening", "opt.dampening"),
        *(
            "optim-dampening",
            "SGD_dampening",
            "opt_sgd_dampening",
            "optimizer.sgd_dampening",
            "train.optimizer.dampening",
        ),
        *("optimizer_kwargs.dampening", "sgd.dampening"),
    ],
)
def test_ways_to_write_a_name(key: str) -> None:
    assert found(Adam(parameters()), {key: 0.9}) == [("dropped", key)]
    assert found(SGD(parameters(), momentum=0.9), {key: 0.9}) == [("not applied", key)]
    assert found(SGD(parameters(), momentum=0.9, dampening=0.9), {key: 0.9}) == []


def test_what_asks_nothing_of_an_optimizer() -> None:
    requested = {
        **{"epochs": 90, "batch_size": 32, "model": "resnet", "optimizer": "sgd", "lr_scheduler": "cosine"},
        **{"bn_momentum": 0.1, "ema_momentum": 0.99, "layer_norm_eps": 1e-5, "model.eps": 1e-6, "max_lr": 1.0},
        **{"alpha": 0.2, "rho": 0.05, "max_iter": 1000, "lr_decay": 0.1, "params": 3, "sgd": True, "warmup_steps": 5},
        **{"momentum": None, "dampening": 0.0, "nesterov": False, "opt.rho": 0, "sgd_nesterov": "false"},
    }
    assert found(AdamW(parameters()), requested) == []


def test_ordinary_words_count_with_a_prefix_and_for_a_class_that_takes_them() -> None:
    assert found(SGD(parameters()), {"rmsprop_alpha": 0.9}) == [("dropped", "rmsprop_alpha")]
    assert found(RMSprop(parameters()), {"alpha": 0.9}) == [("not applied", "alpha")]
    assert found(RMSprop(parameters(), alpha=0.9), {"alpha": 0.9}) == []


def test_groups_may_differ_on_purpose() -> None:
    weight, bias = parameters()
    groups = [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}]
    assert found(AdamW(groups, weight_decay=0.05), {"weight_decay": 0.05}) == []
    findings = check(AdamW(groups, weight_decay=0.05), {"weight_decay": 0.1})
    assert str(findings) == "weight_decay=0.1: not applied, for this AdamW has weight_decay 0.05 and 0"
    exempt = [{"params": [weight], "weight_decay": 0.0}, {"params": [bias], "weight_decay": 0.0}]
    assert found(AdamW(exempt, weight_decay=0.05), {"weight_decay": 0.05}) == [("not applied", "weight_decay")]


def test_zero_counts_where_the_class_would_not_take_it_for_granted() -> None:
    assert found(AdamW(parameters()), {"weight_decay": 0}) == [("not applied", "weight_decay")]  # its default is 0.01


def test_an_implementation_left_to_torch_is_as_good_as_none_asked_for() -> None:
    for name in ("foreach", "fused"):
        assert found(SGD(parameters()), {name: False, f"sgd_{name}": "false"}) == []
        assert found(SGD(parameters(), **{name: True}), {name: False}) == [("not applied", name)]
        assert found(SGD(parameters()), {name: True}) == [("not applied", name)]


def test_an_argument_in_a_group_that_the_class_never_reads_is_dropped() -> None:
    """torch accepts any key in a parameter group."""
    optimizer = Adam([{"params": parameters(), "dampening": 0.9}])
    (finding,) = check(optimizer, {"dampening": 0.9})
    assert str(finding) == (
        "dampening=0.9: dropped, for Adam has no argument dampening (SGD has); "
        "it stands in a parameter group, where nothing reads it"
    )


def test_a_class_that_swallows_arguments() -> None:
    class Swallowing(Adam):
        def __init__(self, params: Any, lr: float = 1e-3, **kwargs: Any) -> None:
            super().__init__(params, lr=lr)

    requested = {"lr": 0.1, "amsgrad": True, "dampening": 0.9}
    kinds = [("not applied", "amsgrad"), ("dropped", "dampening")]
    assert found(Swallowing(parameters(), **requested), requested) == kinds
    assert found(Lion(parameters(), lr=0.1, dampening=0.9), requested) == [
        ("dropped", "amsgrad"),
        ("dropped", "dampening"),
    ]


def test_a_class_of_ones_own() -> None:
    class Own(Optimizer):
        def __init__(self, params: Any, lr: float = 0.1, shrink: float = 0.0, memory: int = 3) -> None:
            self.memory = memory
            super().__init__(params, {"lr": lr, "shrink": shrink})

    assert found(Own(parameters(), shrink=0.5, memory=4), {"opt_shrink": 0.5, "memory": 4}) == []
    assert found(Own(parameters()), {"shrink": 0.5, "memory": 4}) == [
        ("not applied", "shrink"),
        ("not applied", "memory"),
    ]

    class Loose(Optimizer):
        def __init__(self, params: Any, **kwargs: Any) -> None:
            super().__init__(params, kwargs)

        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                group["params"][0].grad.mul_(1 - group["dampening"])

    requested = {"dampening": 0.9, "momentum": 0.9}
    assert found(Loose(parameters(), **requested), requested) == [("dropped", "momentum")]
    assert found(Muon(parameters(), adamw_betas=(0.8, 0.9)), {"adamw_betas": [0.8, 0.9]}) == []


@pytest.mark.parametrize("make", ["warmup", "cosine", "one_cycle"])
def test_schedulers_move_values_that_were_applied(make: str) -> None:
    optimizer = SGD(parameters(), lr=0.3, momentum=0.7)
    scheduler = {
        "warmup": lambda: lr_scheduler.LambdaLR(optimizer, lambda step: step / 10),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, 20),
        "one_cycle": lambda: lr_scheduler.OneCycleLR(optimizer, max_lr=0.9, total_steps=20),
    }[make]()
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    assert found(optimizer, {"lr": 0.9 if make == "one_cycle" else 0.3, "momentum": 0.7}) == []
    assert found(optimizer, {"lr": 0.2, "momentum": 0.6}) == [("not applied", "lr"), ("not applied", "momentum")]


@pytest.mark.parametrize(
    ("requested", "kinds"),
    [
        ({"betas": [0.8, 0.9]}, []),
        ({"betas": "(0.8, 0.9)"}, []),
        ({"adam_beta1": 0.8, "adam_beta2": "0.9", "adam_epsilon": 1e-6, "learning_rate": "5e-4", "wd": 0}, []),
        ({"betas": [0.9, 0.9]}, ["betas"]),
        ({"adam_beta1": 0.9, "adam_beta2": 0.9}, ["adam_beta1"]),
        ({"lr": torch.tensor(5e-4), "amsgrad": "true"}, []),
        ({"lr": 5e-4 * (1 + 1e-3)}, ["lr"]),
    ],
)
def test_values_are_compared_by_what_they_mean(requested: dict[str, Any], kinds: list[str]) -> None:
    optimizer = Adam(parameters(), lr=torch.tensor(5e-4), betas=(0.8, 0.9), eps=1e-6, amsgrad=True)
    assert found(optimizer, requested) == [("not applied", key) for key in kinds]


def test_the_optimizers_own_prefix_goes_before_others() -> None:
    both = {"sgd_lr": 0.1, "adam_lr": 1e-3, "lr": 7.0, "adam_weight_decay": 0.0, "sgd_weight_decay": 5e-4}
    assert found(AdamW(parameters(), lr=1e-3, weight_decay=0.0), both) == []
    assert found(SGD(parameters(), lr=0.1), both) == [("not applied", "sgd_weight_decay")]
    assert found(RMSprop(parameters(), lr=7.0), both) == []  # weight decay 0, as asked for with one of the prefixes


@dataclass
class OptimizerSettings:
    lr: float = 0.1
    dampening: float = 0.5


@dataclass
class Settings:
    epochs: int = 3
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


@pytest.mark.parametrize(
    "requested",
    [
        {"optimizer": {"lr": 0.1, "dampening": 0.5}, "epochs": 3},
        OmegaConf.create({"optimizer": {"lr": 0.1, "dampening": 0.5}}),
        Settings(),
        argparse.Namespace(optimizer=argparse.Namespace(lr=0.1, dampening=0.5)),
        SimpleNamespace(optimizer=SimpleNamespace(lr=0.1, dampening=0.5)),
    ],
)
def test_containers_of_requests(requested: Any) -> None:
    assert found(Adam(parameters(), lr=0.1), requested) == [("dropped", "optimizer.dampening")]
    assert found(SGD(parameters(), lr=0.1, momentum=0.9, dampening=0.5), requested) == []


def test_the_optimizer_inside_a_wrapper_is_looked_at() -> None:
    wrapped = Lookahead(Adam(parameters(), lr=0.1))
    assert found(wrapped, {"lr": 0.1, "dampening": 0.9}) == [("dropped", "dampening")]


@pytest.mark.parametrize(
    ("optimizer", "requested", "message"),
    [
        (nn.Linear(1, 1), {}, "optimizer: is a Linear; allowed is an object of a class derived from torch.optim.Optim"),
        (
            None,
            ["--dampening"],
            "requested: is a list; allowed are a mapping, an argparse.Namespace and a dataclass obj",
        ),
        (None, Settings, "requested: is a type; allowed are"),
        (None, 3, "requested: is an int; allowed are"),
    ],
)
def test_bad_input(optimizer: Any, requested: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(optimizer or SGD(parameters()), requested)


def test_the_package_offers_it_without_importing_torch() -> None:
    program = "import optexp, sys; assert 'check' in dir(optexp) and 'torch' not in sys.modules; optexp.check"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = optexp.nothing


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and Optimizer in kind.__mro__[1:]],
    ids=lambda kind: kind.__name__,
)
def test_no_optimizer_of_torch_drops_its_own_arguments(kind: type[Optimizer]) -> None:
    names = [name for name in inspect.signature(kind).parameters if name != "params"]
    optimizer = kind([nn.Parameter(torch.ones(2, 2))])
    requested = {
        f"{kind.__name__.lower()}_{name}": optimizer.defaults[name] for name in names if name in optimizer.defaults
    }
    assert requested
    assert check(optimizer, requested) == []
    changed = {key: value * 2 for key, value in requested.items() if type(value) is float and value > 0}
    assert [finding.kind for finding in check(optimizer, changed)] == ["not applied"] * len(changed)
