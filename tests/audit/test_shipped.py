"""Every entry of conf/optimizer passes its audit over 200 steps, or fails in a way that its authors know of."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import here

from optexp.audit.audit import audit
from optexp.audit.checks import FAIL, deviation
from optexp.audit.conformance import rule_checks
from optexp.audit.known import KNOWN, known_failure
from optexp.audit.liveness import liveness_checks
from optexp.audit.problems import quadratic
from optexp.audit.promises import promise_checks
from optexp.audit.published import PUBLISHED, rule_of
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


def test_a_number_of_steps_that_is_null_is_found_alive(composer: Composer) -> None:
    """t_alpha_beta3 of AdEMAMix: a warm-up of 0.1 or 0.5 steps is over before the first."""
    subject = audited(composer, "optimizer=pytorch_optimizer", "optimizer.name=ademamix")
    (check,) = (check for check in liveness_checks(subject) if check.name == "alive: t_alpha_beta3")
    assert check.verdict == "pass", check
    assert check.explanation.startswith("t_alpha_beta3=10 changes the weights from step ")


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("sgd", "torch docs, SGD"),
        (
            "adam",
            "torch docs, Adam (Kingma & Ba 2015, arXiv 1412.6980; amsgrad: Reddi et al. 2018, with the maximum over v)",
        ),
        ("rmsprop", "torch docs, RMSprop (Tieleman & Hinton 2012; centered: Graves 2013, arXiv 1308.0850)"),
        ("adadelta", "torch docs, Adadelta (Zeiler 2012, arXiv 1212.5701)"),
        ("asgd", "Polyak & Juditsky 1992"),
    ],
)
def test_the_source_of_a_rule_is_whole(rule: str, source: str) -> None:
    assert PUBLISHED[rule].source == source


def test_the_page_of_optimizers_names_the_sources_as_the_audits_do() -> None:
    page = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text()
    audits = page.partition("| compared with |")[2].partition("\n\n")[0]
    cells = [line.rstrip("| ").rpartition(" | ")[2] for line in audits.splitlines()[2:]]
    known = {"no published rule is known here", *(rule.source for rule in PUBLISHED.values())}
    assert len(cells) > 15
    assert [cell for cell in cells if cell not in known] == []


def test_known_failures_name_an_upstream_thread_and_a_check() -> None:
    assert KNOWN
    for known in KNOWN:
        repository, _, number = known.reference.partition("#")
        assert repository.count("/") == 1
        assert number.isdigit()
        assert known.meaning


@pytest.mark.parametrize(("smallest", "tolerance"), [(4096, 1e-3), (1, 0.23)])
@pytest.mark.parametrize("entry", sorted(EIGHT_BIT))
def test_eight_bit_entries_are_adamw_with_state_of_32_bits_for_small_tensors(
    composer: Composer, entry: str, smallest: int, tolerance: float
) -> None:
    """And with 8 bits within what quantization may change."""
    pytest.importorskip("bitsandbytes")
    subject = audited(composer, f"optimizer={entry}", f"optimizer.min_8bit_size={smallest}")
    assert (subject.dtype, subject.tolerance) == (torch.float32, tolerance)
    checks = [*rule_checks(subject, 200), *promise_checks(subject)]
    assert [check for check in checks if check.verdict == FAIL] == []
    largest = max(check.numbers["largest_deviation"] for check in checks if "largest_deviation" in check.numbers)
    assert largest < 1e-4 if smallest == 4096 else 1e-3 < largest < 0.23


@pytest.mark.parametrize(("signed", "below", "changed"), [(True, 1e-2, 0.124), (False, 1e-4, 0.22)])
def test_the_tolerance_of_8_bits_is_that_of_their_codes(signed: bool, below: float, changed: float) -> None:
    codes = pytest.importorskip("bitsandbytes").functional.create_dynamic_map(signed=signed).double().numpy()
    codes = codes[codes > 0]
    halves = (np.diff(codes) / 2 / codes[:-1])[codes[:-1] > below]
    assert halves.max() == pytest.approx(changed, rel=0.01)


def test_8_bit_classes_have_the_rule_and_memory_of_their_state() -> None:
    kind = type("PagedAdamW8bit", (torch.optim.AdamW,), {"__module__": "bitsandbytes.optim.adamw"})
    rule = rule_of(kind)
    assert rule is PUBLISHED["adamw8bit"]
    assert [rule.tolerance_with({"min_8bit_size": size}) for size in (4096, 13, 12)] == [1e-3, 1e-3, 0.23]
    assert rule.bytes_per_parameter is not None
    assert rule.bytes_per_parameter({"min_8bit_size": 4096}) == 2 + 2 / 64 + 2 / 64
    assert rule.bytes_per_parameter({"min_8bit_size": 10**6}) == 8


class NotInstalled:
    """Finds no bitsandbytes, as where there is none."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "bitsandbytes":
            raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")


def test_eight_bits_need_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled, *sys.meta_path])
    ended = here(tmp_path, "task=audit", "optimizer=adamw8bit")
    assert ended.status == 2
    assert "pip install 'optexp[bitsandbytes]'" in ended.err
