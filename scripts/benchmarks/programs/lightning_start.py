"""One step of Lightning from a cold start; prints when the step had ended (time.time) into the file it is given.

python -m benchmarks.programs.lightning_start FILE
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks import lightning_loop
from benchmarks.programs.problems import problem


def main(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ended, _ = lightning_loop.fit(problem("mlp", 1e-3, 0.01, 0, 32, 1), 1, Path(folder))
        file.write_text(str(time.time() - (time.perf_counter() - ended[-1])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
