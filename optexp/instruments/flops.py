"""FLOPs of a forward pass, counted by torch operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from optexp.optimizers.construction import without_compiler

# torch's counter does not know what attention is called on a CPU.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count what is computed inside the `with` block, without importing torch's compiler.

    torch is made to run LSTMs and encoder layers as the matrix products they are, which are what is counted.
    """
    mode: Any = getattr(flop_counter, "_FlopCounterMode", FlopCounterMode)
    mkldnn, fast = torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
        with without_compiler(mode.__torch_dispatch__), counter:
            yield counter
    finally:
        torch.backends.mkldnn.enabled = mkldnn
        torch.backends.mha.set_fastpath_enabled(fast)
