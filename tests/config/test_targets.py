"""From names to code: what may be named, and what is said about a name or an argument that is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import pytorch_optimizer
import torch

from optexp.config import build
from optexp.config.values import AtLeast
from optexp.errors import BadInput


def takes_some(rate: Annotated[float, AtLeast(0)], kind: Literal["a", "b"] = "a", *, count: int = 1) -> None: ...


def takes_anything(rate: float = 0.1, **others: Any) -> None: ...


class Unreadable:
    """Its annotation names something that does not exist."""

    def __init__(self, rate: "Nowhere" = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's package in the current folder, and nothing of it left behind."""
    (tmp_path / "mine.py").write_text("import torch\nclass Slow(torch.optim.SGD): pass\nnumber = 3\n")
    (tmp_path / "broken.py").write_text("from torch.optim import Nothing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "broken"):
        sys.modules.pop(name, None)


def test_names_become_the_objects_they_name(package: Path) -> None:
    assert build.locate("optimizer", "torch.optim.SGD", ()) is torch.optim.SGD
    assert build.locate("optimizer", "pytorch_optimizer.Lion", ()) is pytorch_optimizer.Lion
    build.trust(["mine"])
    assert build.locate("optimizer", "mine.Slow", ["mine"]).__name__ == "Slow"


def test_the_current_folder_is_searched_only_when_something_is_trusted(package: Path) -> None:
    before = list(sys.path)
    build.trust([])
    assert sys.path == before
    build.trust(["mine"])
    build.trust(["mine"])
    assert sys.path == [str(package), *before]


@pytest.mark.parametrize(
    ("name", "trusted", "message"),
    [
        ("os.system", (), "'os' is not trusted; allowed are torch, .*; if the code is yours, add trust=.os"),
        ("mine.Slow", (), "'mine' is not trusted"),
        ("torchx.optim.SGD", (), "'torchx' is not trusted"),
        ("SGD", (), "must be a dotted name such as torch.optim.SGD"),
        (None, (), "must be a dotted name"),
        (3, (), "must be a dotted name"),
        ("torch.optim.SDG", (), "torch.optim has no 'SDG' [(]did you mean 'SGD'[?][)]"),
        ("torch.optin.SGD", (), "no module named 'torch.optin'"),
        ("optexp.nothing.X", (), "no module named 'optexp.nothing'"),
        ("missing.X", ("missing",), "no module named 'missing'; is 'missing' installed[?]"),
        ("mine.number", ("mine",), "is not a class or a function"),
        ("broken.X", ("broken",), "cannot be imported [(]cannot import name 'Nothing' from 'torch.optim'"),
    ],
)
def test_a_wrong_name_is_said_in_one_line(package: Path, name: Any, trusted: tuple[str, ...], message: str) -> None:
    build.trust(trusted)
    with pytest.raises(BadInput, match=f"^optimizer._target_={name}: {message}") as caught:
        build.locate("optimizer", name, trusted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"rate": 0.1}, {"rate": 1, "kind": "b", "count": 2}])
def test_arguments_that_fit_are_taken(given: dict[str, Any]) -> None:
    build.check_arguments("model", takes_some, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "model.rate must be set: takes_some requires it"),
        ({"rate": -1}, "model.rate=-1: allowed is a finite number ≥ 0"),
        ({"rate": 1, "kind": "c"}, "model.kind=c: allowed is one of a, b"),
        ({"rate": 1, "count": 1.5}, "model.count=1.5: allowed is an integer"),
        (
            {"rate": 1, "cuont": 1},
            "model.cuont=1: takes_some takes no 'cuont' (did you mean 'count'?); it takes rate, ",
        ),
        ({"rate": 1, "x": 1, "y": 2}, "model.x=1: takes_some takes no 'x', 'y'; it takes rate, kind, count"),
        ({"rate": {"_target_": "torch.zeros"}}, "model.rate={'_target_': 'torch.zeros'}: allowed is"),
    ],
)
def test_arguments_that_do_not_fit_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        build.check_arguments("model", takes_some, given)
    assert str(caught.value).startswith(message)


def test_surplus_keys_say_where_they_come_from_and_how_to_drop_them() -> None:
    given = {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}
    with pytest.raises(BadInput) as caught:
        build.check_arguments("optimizer", torch.optim.Adam, given, ["params"], "experiment=exp2")
    message = str(caught.value)
    assert message.startswith("optimizer.momentum=0.9: Adam takes no 'momentum', 'dampening'")
    assert "set by experiment=exp2; ~optimizer.momentum ~optimizer.dampening drops it" in message
    assert "it takes lr, betas, eps" in message
    assert "params" not in message


def test_what_the_program_supplies_is_neither_required_nor_taken_from_the_user() -> None:
    build.check_arguments("model", takes_some, {}, supplied=["rate"])
    with pytest.raises(BadInput, match="takes no 'rate'"):
        build.check_arguments("model", takes_some, {"rate": 1}, supplied=["rate"])


def test_a_function_of_the_users_may_take_anything() -> None:
    build.check_arguments("model", takes_anything, {"depth": 3, "rate": 1})
    with pytest.raises(BadInput, match=r"model\.x: a nested _target_ is not supported"):
        build.check_arguments("model", takes_anything, {"x": {"_target_": "torch.zeros"}})


def test_an_argument_that_pytorch_optimizer_would_drop_in_silence_is_refused() -> None:
    pytorch_optimizer.Lion([torch.zeros(1, requires_grad=True)], lr=0.1, dampening=0.9)  # not a word
    with pytest.raises(BadInput, match=r"optimizer\.dampening=0\.9: Lion takes no 'dampening'"):
        build.check_arguments("optimizer", pytorch_optimizer.Lion, {"lr": 0.1, "dampening": 0.9}, ["params"])


def test_annotations_that_cannot_be_read_are_not_checked() -> None:
    build.check_arguments("model", Unreadable, {"rate": "anything"})


def test_what_a_constructor_rejects_is_the_users_mistake() -> None:
    def rejects(rate: float) -> None:
        raise ValueError("rate is odd\nand more")

    def fails(rate: float) -> None:
        raise KeyError("a bug")

    with pytest.raises(BadInput, match=r"^model: rejects\(rate=1\) rejects its arguments: rate is odd$"):
        build.call("model", rejects, rate=1)
    with pytest.raises(KeyError):  # a bug stays a bug
        build.call("model", fails, rate=1)
    with pytest.raises(BadInput, match=r"^dataset\.root=x: no such folder$"):
        build.call("dataset", _refuses, root="x")


def _refuses(root: str) -> None:
    raise BadInput(f"dataset.root={root}: no such folder")
