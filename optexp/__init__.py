"""optexp: an experiment runner for optimizers that says why a run failed.

Importing the package is cheap: torch is imported only by the modules that train, and by what is asked of this one.

    from optexp import check    # arguments that were asked for and that an optimizer does not have
    from optexp import Monitor  # the measurements and the diagnosis, for a training loop of your own
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {"check": "optexp.dropped_arguments", "Monitor": "optexp.monitor.monitor"}


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
