"""Whether the process of a run is still there."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from optexp.records.process import is_alive, this_process

SAY_AND_WAIT = (
    "import json; from optexp.records.process import this_process; print(json.dumps(this_process())); input()"
)


def test_this_process_is_alive() -> None:
    assert is_alive(this_process()) is True


def test_an_ended_process_is_dead_even_before_its_parent_noticed() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SAY_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    described = json.loads(child.stdout.readline())
    assert is_alive(described) is True
    child.stdin.close()
    deadline = time.monotonic() + 10
    while is_alive(described) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.returncode is None  # nobody has waited for it: it is a zombie
    assert is_alive(described) is False
    child.wait()
    assert is_alive(described) is False


def test_another_process_with_the_same_id_is_not_it() -> None:
    mine = this_process()
    if mine["start"] is not None:
        assert is_alive(mine | {"start": mine["start"] - 1}) is False


def test_another_boot_is_unknown() -> None:
    assert is_alive(this_process() | {"boot": "elsewhere"}) is None
