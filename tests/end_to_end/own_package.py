"""A user's own package and config folder, written into a test's folder."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
import os
import signal
from pathlib import Path

import torch
from torch import nn

from optexp.datasets.digits import digits


class Signs(torch.optim.Optimizer):
    """w = w - lr * sign(gradient)"""

    def __init__(self, params, lr: float = 1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * parameter.grad.sign()


class Fails(torch.optim.SGD):
    """Raises in its third step when fail_above is below the learning rate."""

    def __init__(self, params, lr: float = 0.1, fail_above: float = 0.5):
        super().__init__(params, lr=lr)
        self.fails, self.steps = lr > fail_above, 0

    def step(self, closure=None):
        self.steps += 1
        if self.fails and self.steps == 3:
            raise ArithmeticError("my own mistake\\nwith a second line")
        return super().step(closure)


class Signals(torch.optim.SGD):
    """Sends this process a signal in its third step, once per file `unsent`; with lr above 0.5 only."""

    def __init__(self, params, lr: float = 0.1, momentum: float = 0.0, send: str = "SIGTERM"):
        super().__init__(params, lr=lr, momentum=momentum)
        self.send, self.steps = getattr(signal, send) if lr > 0.5 else None, 0

    def step(self, closure=None):
        self.steps += 1
        if self.send and self.steps == 3 and Path("unsent").exists():
            Path("unsent").unlink()
            os.kill(os.getpid(), self.send)
        return super().step(closure)


class Wide(nn.Module):
    """A model that takes one argument of its own and one that the program fills in."""

    reads = ("images",)

    def __init__(self, input_shape, num_outputs: int, width: int = 8):
        super().__init__()
        size = input_shape[0] * input_shape[1] * input_shape[2]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Tanh(), nn.Linear(width, num_outputs))

    def forward(self, inputs):
        return self.layers(inputs)


class ThirdTime(Wide):
    """Sends this process a signal when it is made for the third time."""

    made = 0

    def __init__(self, input_shape, num_outputs: int, send: str = "SIGTERM"):
        super().__init__(input_shape, num_outputs)
        ThirdTime.made += 1
        if ThirdTime.made == 3:
            ThirdTime.made = 0
            os.kill(os.getpid(), getattr(signal, send))


class NotMade(Wide):
    """Cannot be made a third time: a bug that shows only when a sweep has begun."""

    made = 0

    def __init__(self, input_shape, num_outputs: int):
        super().__init__(input_shape, num_outputs)
        NotMade.made += 1
        if NotMade.made == 3:
            raise KeyError("nobody expected this")


def few_digits(split_seed: int = 0):
    return digits(split_seed=split_seed, val_fraction=0.45, test_fraction=0.45)
'''

CONFIGS = {
    "optimizer/nadam.yaml": "# NAdam\n_target_: torch.optim.NAdam\nlr: 2e-3\nbetas: [0.9, 0.999]\n",
    "optimizer/adafactor.yaml": "# Adafactor\n_target_: torch.optim.Adafactor\nlr: 1e-2\neps: [null, 1e-3]\n",
    "optimizer/lion.yaml": "# Lion\n_target_: pytorch_optimizer.Lion\nlr: 1e-4\nbetas: [0.9, 0.99]\n",
    "optimizer/ademamix.yaml": "# AdEMAMix\n_target_: pytorch_optimizer.AdEMAMix\nlr: 1e-3\nalpha: 5.0\n",
    "optimizer/signs.yaml": "# signs of the gradient\n_target_: mine.Signs\nlr: 1e-2\n",
    "optimizer/fails.yaml": "# fails in its third step\n_target_: mine.Fails\nlr: 0.1\n",
    "optimizer/signals.yaml": "# sends a signal in its third step\n_target_: mine.Signals\nlr: 1.0\nmomentum: 0.9\n",
    "model/wide.yaml": "# a network of my own\n_target_: mine.Wide\nwidth: 6\n",
    "model/third_time.yaml": "# sends a signal\n_target_: mine.ThirdTime\n",
    "model/not_made.yaml": "# cannot be made a third time\n_target_: mine.NotMade\n",
    "dataset/few.yaml": "# few digits\n_target_: mine.few_digits\nbatch_size: 16\nsplit_seed: 0\n",
}


def write_own_package(folder: Path) -> None:
    """Write `mine.py` and the config folder `configs` into a folder."""
    (folder / "mine.py").write_text(MODULE)
    for name, text in CONFIGS.items():
        (folder / "configs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "configs" / name).write_text(text)
