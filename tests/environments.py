"""Virtual environments for tests: made in a second, because they borrow what is installed already."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def lend_packages(environment: Path, *options: str) -> Path:
    """Make a virtual environment that sees the packages of the running one. Returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", *options, environment], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lent = [path for path in sys.path if path.endswith("site-packages")]
    (environment / "lib" / version / "site-packages" / "lent.pth").write_text("\n".join(lent))
    return environment / "bin" / "python"


def clean_environ(**variables: str) -> dict[str, str]:
    """Return this process's variables without those that steer Python, pytest and optexp, and with `variables`."""
    steering = ("PYTHON", "OPTEXP_", "PYTEST_", "VIRTUAL_ENV", "HYDRA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)} | variables
