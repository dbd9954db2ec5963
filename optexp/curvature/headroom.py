"""Stability headroom of a run: how far the curvature at its last checkpoint is below what its optimizer can stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optexp.curvature.lanczos import lanczos
from optexp.curvature.of_run import Measuring, load_checkpoint, preconditioned_products

QUICK = Measuring(samples=512, batch_size=512, eigenvalues=1, tolerance=0.02, max_products=24)
"""A few Lanczos steps on a part of the training data: two digits of the largest eigenvalue."""


@dataclass(frozen=True)
class Headroom:
    """The largest curvature at `step` and the stability limit at learning rate `lr`, by the formula named.

    For optimizers that precondition, the curvature is that of the preconditioned Hessian. `error` is the norm of the
    residual, a bound on the error of the eigenvalue. `limit` is None where no limit is known, and `formula` says why.
    """

    step: int
    curvature: float
    error: float
    lr: float
    limit: float | None
    formula: str

    @property
    def decades(self) -> float | None:
        """log10 of limit over curvature: below 0 the optimizer is beyond its limit; None where either is unknown."""
        if self.limit is None or self.curvature <= 0:
            return None
        return math.log10(self.limit / self.curvature)

    def sentence(self) -> str:
        """Return it in words."""
        found = f"largest curvature {self.curvature:.3g} ± {self.error:.1g} at step {self.step}"
        if self.decades is None:
            return f"{found}; {self.formula if self.limit is None else 'no direction curves upwards'}"
        room = f"{self.decades:.1f} decades of room" if self.decades >= 0 else f"{-self.decades:.1f} decades beyond it"
        return f"{found}; stable below {self.limit:.3g} = {self.formula} at lr {self.lr:g}: {room}"


def headroom(path: Path, trust: Sequence[str] = ()) -> Headroom:
    """Measure the headroom of the run in a directory at its last checkpoint. Raises BadInput where it keeps none."""
    checkpoint = load_checkpoint(path, QUICK, trust=trust)
    statement = checkpoint.stability
    spectrum = lanczos(
        preconditioned_products(checkpoint), checkpoint.draws(0, "lanczos"), 1, QUICK.tolerance, QUICK.max_products
    )
    lr = checkpoint.largest_lr
    limit = statement.limit(lr)
    return Headroom(checkpoint.step, spectrum.eigenvalues[0], spectrum.residuals[0], lr, limit, statement.formula)
