"""Dropout: how much is kept, how it is scaled, and what its masks depend on."""

from __future__ import annotations

import itertools
import typing

import pytest
import torch
from torch import Tensor

from optexp import nn
from optexp.nn.dropout import StackedStepState


def mask(layer: nn.Module, shape: tuple[int, ...] = (64, 50)) -> Tensor:
    return typing.cast(Tensor, layer(torch.ones(shape)))


def attached(p: float = 0.3, layers: int = 1, kind: type[nn.Module] = nn.Dropout) -> tuple[nn.Sequential, nn.StepState]:
    model = nn.Sequential(*(kind(p) for _ in range(layers)))
    return model, nn.attach_step_state(model)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("stateful", [True, False])
def test_keep_rate_and_scale(p: float, stateful: bool) -> None:
    model, _ = attached(p)
    if not stateful:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(p))
    out = model(torch.full((400, 500), 3.0))
    kept = out != 0
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 3 / (1 - p)))
    deviation = (p * (1 - p) / out.numel()) ** 0.5
    assert abs(kept.double().mean().item() - (1 - p)) < 4.5 * deviation


def test_elements_of_a_mask_are_unrelated() -> None:
    model, state = attached(0.5)
    rows = []
    for state.step in range(200):
        rows.append((model(torch.ones(100)) != 0).double())
    correlation = torch.corrcoef(torch.stack(rows))  # between the masks of different steps
    off_diagonal = correlation[~torch.eye(200, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 0.55  # 5.5 deviations of 1 / √100
    assert abs(off_diagonal.square().mean().item() - 1 / 100) < 0.002


def test_same_state_same_mask() -> None:
    (first, state), (second, other) = attached(), attached()
    for state.seed, state.step, state.micro in itertools.product((0, 5), (0, 1, 7), (0, 2)):
        other.seed, other.step, other.micro = state.seed, state.step, state.micro
        torch.manual_seed(state.step)  # torch's own generator has no say
        assert torch.equal(mask(first), mask(second))
        assert torch.equal(mask(first), mask(first))


def test_the_state_of_many_runs_draws_what_each_draws() -> None:
    seeds = [4, 0, 4, 2**62]
    together = StackedStepState(seeds, torch.device("cpu"))
    for together.step, together.micro in itertools.product((0, 3), (0, 1)):
        for layer in (0, 2):
            drawn = together.uniform("dropout", layer, (5, 6))
            assert drawn.shape == (4, 5, 6)
            for row, seed in enumerate(seeds):
                alone = nn.StepState(seed, together.step, together.micro)
                assert torch.equal(drawn[row], alone.uniform("dropout", layer, (5, 6), torch.device("cpu")))
            assert torch.equal(drawn[0], drawn[2]), "equal seeds, equal numbers"
            assert not torch.equal(drawn[0], drawn[1])


def test_different_state_different_mask() -> None:
    model, state = attached(layers=3)
    masks = {}
    for state.seed, state.step, state.micro in itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 2)):
        for index, layer in enumerate(model):
            masks[state.seed, state.step, state.micro, index] = mask(layer)
    for a, b in itertools.combinations(masks, 2):
        agreement = (masks[a] == masks[b]).double().mean().item()
        assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.05), (a, b)


def test_a_mask_does_not_depend_on_earlier_draws() -> None:
    model, state = attached(layers=2)
    state.step = 9
    expected = mask(model[1])
    for state.step in range(9):
        model(torch.ones(3, 3))
    state.step = 9
    assert torch.equal(mask(model[1]), expected)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.StochasticDepth])
def test_identity_in_eval_mode_and_for_p_zero(kind: type[nn.Module]) -> None:
    x = torch.randn(5, 4)
    model, _ = attached(0.5, kind=kind)
    assert not torch.equal(model(x), x)
    assert torch.equal(model.eval()(x), x)
    assert torch.equal(attached(0.0, kind=kind)[0](x), x)


def test_gradient_is_the_scaled_mask() -> None:
    model, _ = attached(0.4)
    x = torch.randn(30, 20, dtype=torch.float64, requires_grad=True)
    out = model(x)
    out.sum().backward()
    scaled_mask = (out != 0).double() / (1 - 0.4)
    torch.testing.assert_close(x.grad, scaled_mask)
    torch.testing.assert_close(out, x * scaled_mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_stays(dtype: torch.dtype) -> None:
    model, _ = attached()
    assert model(torch.ones(8, dtype=dtype)).dtype == dtype


def test_without_a_state_torch_decides() -> None:
    layer = nn.Dropout(0.5)
    torch.manual_seed(1)
    first = mask(layer)
    assert not torch.equal(mask(layer), first)
    torch.manual_seed(1)
    assert torch.equal(mask(layer), first)


def test_stochastic_depth_drops_whole_samples() -> None:
    model, _ = attached(0.25, kind=nn.StochasticDepth)
    out = model(torch.ones(4000, 2, 3))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out[:, 0, 0] != 0).double().mean().item() == pytest.approx(0.75, abs=4.5 * (0.25 * 0.75 / 4000) ** 0.5)


def test_attach_numbers_layers_in_module_order_with_one_state() -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.ReLU(), nn.Dropout(0.2)), nn.StochasticDepth(0.3))
    state = nn.attach_step_state(model)
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout | nn.StochasticDepth)]
    assert [layer.layer_index for layer in layers] == [0, 1, 2]
    assert all(layer.state is state for layer in layers)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_probabilities_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        nn.Dropout(p)
