"""ResNet: sizes by formula and against torchvision, initial weights, and that it trains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from optexp import nn
from optexp.errors import BadInput
from optexp.models.resnet import STAGES, BasicBlock, ResNet


def parameters_by_formula(channels: int, num_outputs: int, stages: tuple[int, ...], width: int) -> int:
    """Count the weights of the architecture as the paper writes it down."""
    total = channels * 9 * width + 2 * width
    before = width
    for stage, num_blocks in enumerate(stages):
        after = width * 2**stage
        for block in range(num_blocks):
            total += 9 * before * after + 9 * after * after + 2 * 2 * after
            if stage > 0 and block == 0:
                total += before * after + 2 * after
            before = after
    return total + (before + 1) * num_outputs


def num_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("depth", STAGES)
@pytest.mark.parametrize(("width", "input_shape"), [(4, (1, 8, 8)), (8, (3, 32, 32))])
def test_shapes_and_parameter_count(depth: int, width: int, input_shape: tuple[int, int, int]) -> None:
    model = ResNet(input_shape, 7, depth, width)  # type: ignore[arg-type]
    assert model(torch.randn(2, *input_shape)).shape == (2, 7)
    assert num_parameters(model) == parameters_by_formula(input_shape[0], 7, STAGES[depth], width)


def test_depth_counts_the_layers_with_weights() -> None:
    for depth in STAGES:
        model = ResNet((1, 8, 8), 10, depth, 2)  # type: ignore[arg-type]
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(convolutions) + 1 == depth


def test_default_size_on_digits() -> None:
    assert num_parameters(ResNet((1, 8, 8), 10)) == 77_754


@pytest.mark.parametrize(("depth", "name"), [(18, "resnet18"), (34, "resnet34")])
def test_parameter_count_equals_torchvision_but_for_the_stem(depth: int, name: str) -> None:
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        ours, theirs = ResNet((3, 224, 224), 1000, depth, 64), models.get_model(name)  # type: ignore[arg-type]
    assert num_parameters(ours) - 64 * 3 * 3 * 3 == num_parameters(theirs) - 64 * 3 * 7 * 7


def test_output_equals_torchvision_with_the_same_weights_and_stem() -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    ours, theirs = ResNet((3, 16, 16), 10, 18, 64, zero_init=False), models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):  # same layers in the same order
            other.copy_(mine)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_blocks_start_as_identities() -> None:
    torch.manual_seed(0)
    block = next(m for m in ResNet((1, 8, 8), 10, 14).modules() if isinstance(m, BasicBlock))
    x = torch.randn(4, 16, 8, 8)
    assert torch.equal(block(x), x.relu())
    started = next(m for m in ResNet((1, 8, 8), 10, 14, zero_init=False).modules() if isinstance(m, BasicBlock))
    assert not torch.allclose(started(x), x.relu(), atol=0.1)


def test_zero_init_touches_the_last_normalization_of_each_block_only() -> None:
    model = ResNet((1, 8, 8), 10, 20)
    zeros = {name for name, p in model.named_parameters() if name.endswith("weight") and not p.any()}
    assert zeros == {f"blocks.{i}.norm2.weight" for i in range(9)}


def test_convolutions_have_he_scale() -> None:
    torch.manual_seed(0)
    for name, module in ResNet((3, 32, 32), 10, 18, 64).named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            expected = (2 / fan_out) ** 0.5
            tolerance = 4.5 / (2 * module.weight.numel()) ** 0.5  # relative deviation of a sample deviation
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance), name


def test_channels_last_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    model, x = ResNet((3, 8, 8), 10).double().eval(), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize(("arguments", "message"), [({"depth": 50}, "model.depth=50"), ({"width": 0}, "model.width=0")])
def test_bad_sizes_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=rf"^{message}: must be"):
        ResNet((1, 8, 8), 10, **arguments)  # type: ignore[arg-type]


def test_one_seed_one_model() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in ResNet((1, 8, 8), 10).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_it_fits_a_fixed_batch() -> None:
    torch.manual_seed(0)
    model = ResNet((1, 8, 8), 10, width=8)
    x, y = torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
