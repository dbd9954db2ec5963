"""Import torchvision, whose compiled part fits one release of torch only."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

from optexp.errors import BadInput


def import_torchvision() -> ModuleType:
    """Return the torchvision module (imported where it is used only: it takes more than a second).

    Raises BadInput, in one line with both versions, when it is missing or was built for another release of torch.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise BadInput(
            f"torchvision cannot be imported: no module named '{error.name}'; pip install torchvision"
        ) from None
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        # A foreign build shows as a missing operator (RuntimeError), symbol (ImportError, OSError) or name.
        torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        minor = 15 + int(torch.split(".")[1])  # torch 2.N belongs to torchvision 0.(15 + N)
        raise BadInput(
            f"torchvision {torchvision} does not load with torch {torch} ({reason}); "
            f"install the pair: pip install torch=={torch.split('+')[0]} 'torchvision==0.{minor}.*'"
        ) from None
