"""Every entry of conf/optimizer passes its audit over 200 steps, or fails in a way that its authors know of."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from command_line import here

from optexp.audit.audit import audit
from optexp.audit.checks import FAIL, deviation
from optexp.audit.conformance import rule_checks
from optexp.audit.known import KNOWN, known_failure
from optexp.audit.problems import quadratic
from optexp.audit.subject import Follow, Subject
from optexp.config.compose import Composer
from optexp.tasks import prepare
from optexp.tasks.audit import Audit

ENTRIES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "optimizer").glob("*.yaml"))
EIGHT_BIT = {"adamw8bit", "paged_adamw8bit"}
WITHOUT_RULE = EIGHT_BIT | {
    "lbfgs",  # compared with the two-loop recursion in test_lbfgs.py
    "pytorch_optimizer",  # a hundred classes; compared with its own single-tensor code below
}


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


def audited(composer: Composer, *words: str) -> Subject:
    task = prepare(composer.compose(["task=audit", *words]))
    assert isinstance(task, Audit)
    return task.subject


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry not in WITHOUT_RULE])
def test_trajectories_over_200_steps_are_those_of_the_published_rule(composer: Composer, entry: str) -> None:
    subject = audited(composer, f"optimizer={entry}")
    checks = list(rule_checks(subject, 200))
    assert [check for check in checks if check.verdict != "pass"] == []
    compared = [check for check in checks if check.numbers.get("steps") == 200]
    assert len(compared) == 4
    # 1e-6 of the distance travelled in float64; Newton-Schulz in bfloat16 is the one exception.
    assert all(check.numbers["tolerance"] == (0.05 if entry == "muon" else 1e-6) for check in compared)


@pytest.mark.parametrize("name", ["adopt", "ademamix", "lamb"])
def test_trajectories_of_the_collection_are_those_of_its_single_tensor_code(composer: Composer, name: str) -> None:
    subject = audited(composer, "optimizer=pytorch_optimizer", f"optimizer.name={name}")
    problem = subject.suited(quadratic())
    alone = subject.follow(problem, 200, Follow(changes={"foreach": False}))
    assert np.abs(alone.moves[-1]).max() > 0
    off = deviation(subject.follow(problem, 200).weights, alone.weights, 1e-9)
    assert off.step is None, off


def _runs(entry: str) -> bool:
    return entry not in EIGHT_BIT or find_spec("bitsandbytes") is not None


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if _runs(entry)])
def test_every_shipped_optimizer_passes_its_audit_or_fails_as_known(composer: Composer, entry: str) -> None:
    subject = audited(composer, f"optimizer={entry}")
    failures = [check for check in audit(subject, 50) if check.verdict == FAIL]
    assert [check for check in failures if known_failure(subject.kind, check) is None] == []
    if entry == "asgd":
        assert [check.name for check in failures] == ["lr changes"]


def test_known_failures_name_an_upstream_thread_and_a_check() -> None:
    assert KNOWN
    for known in KNOWN:
        repository, _, number = known.reference.partition("#")
        assert repository.count("/") == 1
        assert number.isdigit()
        assert known.meaning


def test_eight_bits_need_their_library(tmp_path: Path) -> None:
    if find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    ended = here(tmp_path, "task=audit", "optimizer=adamw8bit")
    assert ended.status == 2
    assert "bitsandbytes" in ended.err
