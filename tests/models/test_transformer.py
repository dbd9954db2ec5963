"""Transformer: sizes, causality, tied weights, initial scale, dropout, and that it trains."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from optexp import nn
from optexp.errors import BadInput
from optexp.models.transformer import Transformer

VOCABULARY, CONTEXT = 31, 12


def small(**arguments: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(VOCABULARY, CONTEXT, **{"width": 16, "heads": 2, **arguments})  # type: ignore[arg-type]


def tokens(batch: int = 2, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


def num_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("layers", "width", "heads"), [(1, 8, 1), (2, 64, 4), (3, 24, 3)])
def test_shapes_and_parameter_count(layers: int, width: int, heads: int, tied: bool) -> None:
    model = Transformer(VOCABULARY, CONTEXT, layers, width, heads, tied=tied)
    assert model(tokens()).shape == (2, CONTEXT, VOCABULARY)
    per_block = 12 * width**2 + 13 * width  # 4 + 8 matrices, their biases, two normalizations
    expected = (VOCABULARY + CONTEXT) * width + layers * per_block + 2 * width + (0 if tied else VOCABULARY * width)
    assert num_parameters(model) == expected


def test_gpt2_small_has_the_published_size() -> None:
    with torch.device("meta"):
        assert num_parameters(Transformer(50257, 1024, 12, 768, 12)) == 124_439_808


def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = small().double().eval()
    x = tokens()
    before = model(x)
    for position in range(CONTEXT):
        changed = x.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCABULARY
        after = model(changed)
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-12)
        assert ((after - before)[:, position:].abs().amax((0, 2)) > 1e-6).all()  # and all later ones do change


def test_shorter_sequences_give_the_same_logits() -> None:
    model = small().double().eval()
    torch.testing.assert_close(model(tokens()[:, :5]), model(tokens())[:, :5])


def test_positions_matter() -> None:
    same = torch.full((1, CONTEXT), 3)
    logits = small().eval()(same)[0]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)


def test_tied_weights_are_shared_and_saved_once() -> None:
    model = small()
    assert [name for name in model.state_dict() if "embedding" in name or "head" in name] == ["embedding.weight"]
    last = model.norm(model.blocks(model.positions(model.embedding(tokens()))))
    torch.testing.assert_close(model(tokens()), last @ model.embedding.weight.T)
    # The gradient has a part from the input (rows of tokens seen) and one from the output (all rows).
    F.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten()).backward()
    assert model.embedding.weight.grad is not None
    assert (model.embedding.weight.grad.abs().sum(1) > 0).all()


def test_untied_weights_are_separate() -> None:
    model = small(tied=False)
    before = model(tokens())
    with torch.no_grad():
        assert model.head is not None
        model.head.weight.zero_()
    assert not model(tokens()).any()
    assert before.any()


@pytest.mark.parametrize(("width", "std"), [(768, 0.02), (64, 0.02 * math.sqrt(12))])
def test_initial_scale(width: int, std: float) -> None:
    torch.manual_seed(0)
    layers = 2
    for name, p in Transformer(500, 100, layers, width, 4, tied=False).named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.full_like(p, float(name.endswith("weight")))), name
        elif name.endswith("bias"):
            assert not p.any(), name
        else:
            expected = std / math.sqrt(2 * layers) if "project" in name else std
            assert p.std().item() == pytest.approx(expected, rel=4.5 / math.sqrt(2 * p.numel())), name
            assert abs(p.mean().item()) < 4.5 * expected / math.sqrt(p.numel()), name


@pytest.mark.parametrize("width", [32, 64, 256])
def test_first_loss_is_that_of_guessing(width: int) -> None:
    torch.manual_seed(0)
    logits = Transformer(VOCABULARY, CONTEXT, width=width, tied=False)(tokens(64))
    loss = F.cross_entropy(logits.flatten(0, 1), tokens(64).roll(1, 0).flatten()).item()
    assert loss == pytest.approx(math.log(VOCABULARY), abs=0.3)


def test_dropout_acts_in_training_and_repeats_with_the_step() -> None:
    model = small(dropout=0.3)
    state = nn.attach_step_state(model)
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 1 + 2 * 2
    state.step = 5
    first = model(tokens())
    state.step = 6
    assert not torch.equal(model(tokens()), first)
    state.step = 5
    assert torch.equal(model(tokens()), first)
    model.eval()
    assert torch.equal(model(tokens()), small().eval()(tokens()))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"width": 30, "heads": 4}, "width=30"),
        ({"layers": 0}, "layers=0"),
        ({"heads": 0}, "heads=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ],
)
def test_bad_sizes_are_named(arguments: dict[str, object], key: str) -> None:
    with pytest.raises(BadInput, match=rf"^model\.{key}: must "):
        small(**arguments)


@pytest.mark.parametrize("tied", [True, False])
def test_it_learns_a_fixed_batch(tied: bool) -> None:
    model = small(tied=tied)
    x = tokens(8, CONTEXT + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
