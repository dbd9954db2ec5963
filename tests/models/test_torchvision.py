"""torchvision's classifiers by name, and the message when its build does not fit torch."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from optexp import nn
from optexp.errors import BadInput
from optexp.models.torchvision import TorchvisionClassifier
from optexp.pairing import import_torchvision


@pytest.mark.parametrize(
    ("name", "input_shape"),
    [
        ("resnet18", (1, 8, 8)),
        ("resnet18", (3, 32, 32)),
        ("mobilenet_v3_small", (3, 32, 32)),
        ("shufflenet_v2_x0_5", (1, 28, 28)),
        ("googlenet", (3, 32, 32)),
    ],
)
def test_logits_in_both_modes(name: str, input_shape: tuple[int, int, int]) -> None:
    model = TorchvisionClassifier(input_shape, 7, name)
    for mode in (True, False):
        assert model.train(mode)(torch.randn(2, *input_shape)).shape == (2, 7)


def test_inception_has_no_auxiliary_output() -> None:
    model = TorchvisionClassifier((3, 75, 75), 7, "inception_v3")
    assert model(torch.randn(2, 3, 75, 75)).shape == (2, 7)
    assert not [name for name, _ in model.named_parameters() if "aux" in name.lower()]


def test_vision_transformers_are_built_for_the_image() -> None:
    shape = (3, 32, 32)
    with torch.device("meta"):  # 86 million weights are not needed to see it
        model = TorchvisionClassifier(shape, 10, "vit_b_16")
    assert model.classifier.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)


def test_one_channel_is_repeated() -> None:
    torch.manual_seed(0)
    model = TorchvisionClassifier((1, 16, 16), 5, "resnet18").eval()
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(model(x), model.classifier(torch.cat([x, x, x], 1)))


def test_the_weights_are_torchvisions_own() -> None:
    torch.manual_seed(0)
    ours = TorchvisionClassifier((3, 32, 32), 5, "resnet18").classifier.state_dict()
    torch.manual_seed(0)
    theirs = import_torchvision().models.resnet18(num_classes=5).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_random_layers_repeat_with_the_step() -> None:
    torch.manual_seed(0)
    model = TorchvisionClassifier((3, 32, 32), 10, "efficientnet_b0")
    state = nn.attach_step_state(model)
    kinds = {type(m).__name__ for m in model.modules() if "Drop" in type(m).__name__ or "Stoch" in type(m).__name__}
    assert kinds == {"Dropout", "StochasticDepth"}
    assert all(type(m).__module__ == "optexp.nn.dropout" for m in model.modules() if type(m).__name__ in kinds)
    outputs: list[torch.Tensor] = []
    x = torch.randn(4, 3, 32, 32)
    for state.step in (1, 2, 1):
        torch.manual_seed(len(outputs))
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_unknown_name() -> None:
    number = len(import_torchvision().models.list_models(module=import_torchvision().models))
    with pytest.raises(BadInput, match=rf"^model\.name=resnet5: .*did you mean 'resnet.*it has {number}"):
        TorchvisionClassifier((3, 32, 32), 10, "resnet5")


@pytest.mark.parametrize(
    ("name", "input_shape"), [("vgg11", (1, 8, 8)), ("vit_b_16", (1, 28, 28)), ("resnet18", (4, 32, 32))]
)
def test_images_it_cannot_take(name: str, input_shape: tuple[int, int, int]) -> None:
    shape = " × ".join(map(str, input_shape))
    with (
        pytest.raises(BadInput, match=rf"^model\.name={name}: does not take {shape} images: ") as caught,
        torch.device("meta" if name == "vgg11" else "cpu"),
    ):
        TorchvisionClassifier(input_shape, 10, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            r"does not load with torch .*nms.*torchvision==0\.\d+\.\*",
        ),
        ("raise ImportError('undefined symbol: _ZN3c10')", "does not load with torch .*undefined symbol"),
        ("import no_such_package_here", "no module named 'no_such_package_here'"),
    ],
)
def test_a_torchvision_that_does_not_fit(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision.py").write_text(code + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(BadInput, match=message) as caught:
        import_torchvision()
    assert "\n" not in str(caught.value)


def test_torchvision_is_not_imported_with_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "optexp.models.torchvision")
    importlib.import_module("optexp.models.torchvision")
    assert "torchvision" not in sys.modules
