"""Whether the process of a run is still there."""

from __future__ import annotations

import subprocess
import sys

from optexp.records.process import is_alive, this_process

SAY_AND_WAIT = (
    "import json; from optexp.records.process import this_process; print(json.dumps(this_process())); input()"
)


def test_this_process_is_alive() -> None:
    assert is_alive(this_process()) is True


def test_an_ended_process_is_dead_even_before_its_parent_noticed() -> None:
    import json

    child = subprocess.Popen(
        [sys.executable, "-c", SAY_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    described = json.loads(child.stdout.readline())
    assert is_alive(described) is True
    child.stdin.close()
    child.stdout.read()  # until the child has closed its end, then a moment for it to exit
    while is_alive(described):
        pass
    assert is_alive(described) is False  # a zombie
    child.wait()
    assert is_alive(described) is False


def test_another_process_with_the_same_id_is_not_it() -> None:
    mine = this_process()
    if mine["start"] is not None:
        assert is_alive(mine | {"start": mine["start"] - 1}) is False


def test_another_boot_is_unknown() -> None:
    assert is_alive(this_process() | {"boot": "elsewhere"}) is None
