"""Threads, devices and signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from optexp.engine import runtime
from optexp.errors import BadInput


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wanted", "flops", "expected"), [(None, 5e8, 1), (None, 2e9, 3), (None, None, 3), (2, 5e8, 2), (2, 1e12, 2)]
)
def test_small_steps_take_one_thread(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None, flops: float | None, expected: int
) -> None:
    monkeypatch.setattr(runtime, "ALL_THREADS", 3)
    runtime.use_threads(wanted, flops)
    assert torch.get_num_threads() == expected


def test_the_device_is_described() -> None:
    torch.set_num_threads(1)
    assert runtime.describe(torch.device("cpu")) == "cpu (1 thread)"
    torch.set_num_threads(2)
    assert runtime.describe(torch.device("cpu")) == "cpu (2 threads)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_bad_input() -> None:
    assert runtime.choose_device("auto").type in ("cpu", "mps")
    with pytest.raises(BadInput, match=r"engine\.device=cuda: no CUDA device"):
        runtime.choose_device("cuda")


@pytest.mark.parametrize(
    ("name", "parameters", "computed"),
    [
        ("fp32", torch.float32, torch.float32),
        ("bf16", torch.float32, torch.bfloat16),
        ("fp16", torch.float32, torch.float16),
        ("fp64", torch.float64, torch.float64),
    ],
)
def test_what_a_precision_is_for_weights_batches_and_products(
    name: str, parameters: torch.dtype, computed: torch.dtype
) -> None:
    precision = runtime.Precision(name, torch.device("cpu"))
    assert precision.parameter_dtype == parameters
    assert precision.scaler.is_enabled() == (name == "fp16")
    assert precision.cast(torch.ones(2)).dtype == parameters
    assert precision.cast(torch.ones(2, dtype=torch.int64)).dtype == torch.int64, "tokens and classes stay integers"
    layer = torch.nn.Linear(3, 3).to(precision.parameter_dtype)
    with precision.autocast():
        assert layer(precision.cast(torch.ones(2, 3))).dtype == computed


def test_a_device_without_64_bit_numbers_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"engine\.precision=fp64: .* allowed are fp32, bf16 and fp16"):
        runtime.Precision("fp64", torch.device("mps"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with runtime.Interruption().listening() as interruption:
        os.kill(os.getpid(), number)
        assert interruption.received == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with runtime.Interruption().listening() as interruption:
            os.kill(os.getpid(), number)
            assert interruption.received is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.received == signal.SIGTERM
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
