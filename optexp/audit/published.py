"""Which published rule an optimizer class claims to follow, and what is known of that rule beside its formula."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optexp.audit import rules
from optexp.audit.problems import SHAPES, Array
from optexp.audit.rules import Settings, State

Rule = Callable[[Settings, State, Array, Array, int], Array]


@dataclass(frozen=True)
class Published:
    """A rule with the hyperparameters it reads, its first step and its memory.

    `first_step(h, w, g, hessian)` is the documented first displacement of an element where weight decay is 0, and
    `first_words` says it. `bytes_per_parameter(h)` counts float32 buffers. `tolerance` is the largest deviation, as a
    fraction of the distance travelled, that counts as agreement, and `because` says why it is not the usual one.
    """

    name: str
    rule: Rule
    arguments: frozenset[str]
    first_step: Callable[[Settings, Array, Array, Array], Array]
    first_words: str
    bytes_per_parameter: Callable[[Settings], float] | None
    tolerance: float = 1e-6
    first_tolerance: float = 1e-6
    because: str = ""
    neutral: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters that the rule does not know, with the value at which they do nothing."""
    unread: frozenset[str] = frozenset()
    """Hyperparameters that do not show in the weights of this rule: how a Hessian is estimated that is given here."""
    lr_is_initial: bool = False
    """Whether the learning rate is documented as where step sizes start, and is not read again."""
    coarse: Callable[[Settings], float] | None = None
    """The tolerance of settings in which state is kept in fewer bits; 0 in all others."""

    @property
    def source(self) -> str:
        """Where the formula comes from: the first line of the rule's docstring, up to a colon outside parentheses."""
        first_line = (inspect.getdoc(self.rule) or "").partition("\n")[0]
        return re.split(r":(?![^()]*\))", first_line, maxsplit=1)[0].rstrip(".")

    def tolerance_with(self, settings: Settings) -> float:
        """Return the tolerance of an optimizer with these settings."""
        return max(self.tolerance, self.coarse(settings) if self.coarse else 0.0)

    def lacking(self, settings: Settings) -> list[str]:
        """Return the arguments that the rule reads and an optimizer with these settings does not have."""
        optional = ("maximize", "amsgrad", "weight_decouple", "fixed_decay", "decoupled_weight_decay", "ams_bound")
        return [name for name in sorted(self.arguments) if name not in settings and name not in optional]

    def obstacle(self, settings: Mapping[str, Any]) -> str | None:
        """Return why the rule does not describe an optimizer with these settings; None where it does."""
        for name, value in settings.items():
            idle = name in self.neutral and self.neutral[name] == value
            if name not in self.arguments | self.unread and not idle:
                return f"the rule '{self.name}' does not know {name}={value}"
        return None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _scaled(g: Array, eps: float) -> Array:
    return g / (np.abs(g) + eps)


def _sgd_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    return -h["lr"] * g * (1 + h["momentum"] if h["nesterov"] else 1)


def _adagrad_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    return -h["lr"] * g / (np.sqrt(h["initial_accumulator_value"] + g * g) + h["eps"])


def _rmsprop_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    share = 1 - h["alpha"]
    return -h["lr"] * g / (math.sqrt(share - (share * share if h["centered"] else 0)) * np.abs(g) + h["eps"])


def _adam_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    return -h["lr"] * _scaled(g, h["eps"])


def _nadam_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    beta1 = h["betas"][0]
    one, two = (beta1 * (1 - 0.5 * 0.96 ** (t * h["momentum_decay"])) for t in (1, 2))
    return -h["lr"] * (1 + two * (1 - beta1) / (1 - one * two)) * _scaled(g, h["eps"])


def _adadelta_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    return -h["lr"] * g * np.sqrt(h["eps"] / ((1 - h["rho"]) * g * g + h["eps"]))


def _rprop_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    return -np.clip(h["lr"], *h["step_sizes"]) * np.sign(g)


def _adafactor_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    def rms(x: Array) -> float:
        return float(np.sqrt(np.mean(x * x)))

    second = g * g
    if g.ndim > 1:
        second = second.mean(-1, keepdims=True) * second.mean(-2, keepdims=True) / second.mean()
    update = g / np.sqrt(second)
    return -min(h["lr"], 1.0) * max(h["eps"][1], rms(w)) * update / max(1.0, rms(update) / h["d"])


def _muon_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    left, _, right = np.linalg.svd(g, full_matrices=False)
    wide = 0.2 * math.sqrt(max(g.shape)) if h["adjust_lr_fn"] == "match_rms_adamw" else 0.0
    return -h["lr"] * (wide or math.sqrt(max(1, g.shape[0] / g.shape[1]))) * (left @ right)


def _muon_and_adamw_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    if g.ndim > 1:
        return _muon_first(h, w, g, hessian)
    return -h["lr"] * h["adamw_lr_ratio"] * _scaled(g, h["adamw_eps"])


def _sophia_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    beta1, beta2 = h["betas"]
    return -h["lr"] * np.clip((1 - beta1) * g / np.maximum((1 - beta2) * hessian, h["eps"]), -h["p"], h["p"])


def _schedule_free_first(h: Settings, w: Array, g: Array, hessian: Array) -> Array:
    return -h["lr"] / max(1, h["warmup_steps"]) * _scaled(g, h["eps"])


_SINGLE = 1e-3
"""Tolerance of weights in float32, which every optimizer that rounds to it gets: measured are up to 3e-5."""


def _eight_bit_tolerance(h: Settings) -> float:
    """Return how far 8-bit state may lead astray, 0 where tensors as small as the problems' keep 32 bits.

    Codes of the dynamic map (Dettmers et al. 2022, arXiv 2110.02861, section 2.1) lie so far apart that rounding
    changes a signed value by up to 6.6 % where it is above a tenth of the largest of its block and 12.4 % above a
    hundredth; the unsigned map of the second moment has one bit more: 22 % above a ten-thousandth, 10.5 % in its root.
    A step m / sqrt(v) of elements in that range is right within 0.124 + 0.105, and so is a path of such steps.
    """
    largest = max(math.prod(shape) for shape in SHAPES)
    return 0.23 if h["min_8bit_size"] <= largest else 0.0


def _eight_bit_bytes(h: Settings) -> float:
    """Return what a matrix of 256 × 256 needs: two codes, two float32 maxima per 256 of them, two maps of 256 codes."""
    size = 256 * 256
    return 8.0 if size < h["min_8bit_size"] else 2.0 + 2 * 4.0 / 256 + 2 * 256 * 4.0 / size


_ADAM = _words("lr betas eps weight_decay amsgrad maximize")
_BFLOAT16 = "torch orthogonalizes in bfloat16, of 8 significant bits"
_SIGN = "lr · sign(g), for |g| far above eps: bias correction makes up for moments that start at 0"

PUBLISHED: dict[str, Published] = {
    rule.name: rule
    for rule in (
        Published(
            "sgd",
            rules.sgd,
            _words("lr momentum dampening weight_decay nesterov maximize weight_decouple"),
            _sgd_first,
            "lr · g: the first buffer is the gradient itself, undampened (times 1 + momentum with nesterov)",
            lambda h: 4.0 * (h["momentum"] != 0),
        ),
        Published(
            "adagrad",
            rules.adagrad,
            _words("lr lr_decay weight_decay initial_accumulator_value eps maximize"),
            _adagrad_first,
            "lr · g / (sqrt(initial_accumulator_value + g²) + eps)",
            lambda h: 4.0,
        ),
        Published(
            "rmsprop",
            rules.rmsprop,
            _words("lr alpha eps weight_decay momentum centered maximize"),
            _rmsprop_first,
            "lr / sqrt(1 - alpha) · sign(g): no bias correction",
            lambda h: 4.0 + 4.0 * (h["momentum"] > 0) + 4.0 * h["centered"],
        ),
        Published(
            "adam",
            rules.adam,
            _ADAM | {"decoupled_weight_decay"},
            _adam_first,
            _SIGN,
            lambda h: 8.0 + 4.0 * bool(h.get("amsgrad")),
        ),
        Published("adamw", rules.adamw, _ADAM, _adam_first, _SIGN, lambda h: 8.0 + 4.0 * bool(h.get("amsgrad"))),
        Published(
            "adamw8bit",
            rules.adamw,
            _ADAM,
            _adam_first,
            _SIGN,
            _eight_bit_bytes,
            tolerance=_SINGLE,
            first_tolerance=_SINGLE,
            because="state in 32 bits below min_8bit_size elements, weights in single precision",
            coarse=_eight_bit_tolerance,
        ),
        Published(
            "nadam",
            rules.nadam,
            _words("lr betas eps weight_decay momentum_decay decoupled_weight_decay maximize"),
            _nadam_first,
            "lr · (1 + mu_2 (1 - beta1) / (1 - mu_1 mu_2)) · sign(g)",
            lambda h: 8.0,
        ),
        Published(
            "radam",
            rules.radam,
            _words("lr betas eps weight_decay decoupled_weight_decay maximize"),
            lambda h, w, g, hessian: -h["lr"] * g,
            "lr · g: not adaptive while the variance of the second moment is intractable",
            lambda h: 8.0,
        ),
        Published(
            "adamax",
            rules.adamax,
            _words("lr betas eps weight_decay maximize"),
            _adam_first,
            _SIGN,
            lambda h: 8.0,
        ),
        Published(
            "adadelta",
            rules.adadelta,
            _words("lr rho eps weight_decay maximize"),
            _adadelta_first,
            "lr · g · sqrt(eps / ((1 - rho) g² + eps))",
            lambda h: 8.0,
        ),
        Published(
            "asgd",
            rules.asgd,
            _words("lr lambd alpha weight_decay maximize"),
            lambda h, w, g, hessian: -h["lr"] * (g + h["lambd"] * w),
            "lr · (g + lambd w)",
            lambda h: 4.0,
            unread=frozenset({"t0"}),
        ),
        Published(
            "rprop",
            rules.rprop,
            _words("lr etas step_sizes maximize"),
            _rprop_first,
            "lr · sign(g)",
            lambda h: 8.0,
            lr_is_initial=True,
        ),
        Published(
            "adafactor",
            rules.adafactor,
            _words("lr beta2_decay eps d weight_decay maximize"),
            _adafactor_first,
            "max(eps[1], RMS(w)) · min(lr, 1) · sign(g) for a vector; g / sqrt(rows · columns) of g² for a matrix",
            lambda h: 0.0,
        ),
        Published(
            "muon",
            rules.muon,
            _words("lr weight_decay momentum nesterov ns_coefficients eps ns_steps adjust_lr_fn"),
            _muon_first,
            "lr · sqrt(max(1, rows/columns)) · U Vᵀ of g = U S Vᵀ, with singular values of about 0.5 to 1.5",
            lambda h: 4.0,
            tolerance=0.05,
            first_tolerance=0.5,
            because=_BFLOAT16,
        ),
        Published(
            "muon_and_adamw",
            rules.muon_and_adamw,
            _words(
                "lr weight_decay momentum nesterov ns_coefficients eps ns_steps adjust_lr_fn "
                "adamw_lr_ratio adamw_betas adamw_eps"
            ),
            _muon_and_adamw_first,
            "about lr · scale · U Vᵀ of g = U S Vᵀ for a matrix, lr · adamw_lr_ratio · sign(g) for all else",
            lambda h: 4.0,
            tolerance=0.05,
            first_tolerance=0.5,
            because=_BFLOAT16,
        ),
        Published(
            "lion",
            rules.lion,
            _words("lr betas weight_decay weight_decouple fixed_decay maximize"),
            lambda h, w, g, hessian: -h["lr"] * np.sign(g),
            "lr · sign(g)",
            lambda h: 4.0,
        ),
        Published(
            "sophia",
            rules.sophia,
            _words("lr betas weight_decay weight_decouple fixed_decay p eps maximize"),
            _sophia_first,
            "lr · clip((1 - beta1) g / max((1 - beta2) h, eps), p)",
            None,
            unread=_words("update_period num_samples hessian_distribution"),
        ),
        Published(
            "schedule_free_adamw",
            rules.schedule_free_adamw,
            _words("lr betas weight_decay r weight_lr_power warmup_steps ams_bound eps maximize"),
            _schedule_free_first,
            "lr · sign(g): the average x is z at the first step",
            lambda h: 8.0 + 4.0 * bool(h.get("ams_bound")),
            neutral={"decoupling_c": 0},
        ),
    )
}

_BY_CLASS = {
    "torch": {
        name: name.lower()
        for name in (
            *("SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam"),
            *("Adamax", "Adadelta", "ASGD", "Rprop", "Adafactor", "Muon"),
        )
    },
    "pytorch_optimizer": {
        "Lion": "lion",
        "SGDW": "sgd",
        "SophiaH": "sophia",
        "ScheduleFreeAdamW": "schedule_free_adamw",
    },
    "bitsandbytes": {"AdamW8bit": "adamw8bit", "PagedAdamW8bit": "adamw8bit"},
    "optexp": {"Muon": "muon_and_adamw"},
    "schedulefree": {"AdamWScheduleFree": "schedule_free_adamw"},
}


def rule_of(kind: type) -> Published | None:
    """Return the rule of a class by its name and library, or by those of what it is derived from; None: none here."""
    for ancestor in kind.__mro__:
        found = _BY_CLASS.get(ancestor.__module__.split(".")[0], {}).get(ancestor.__name__)
        if found:
            return PUBLISHED[found]
    return None
