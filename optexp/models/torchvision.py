"""Any classifier of torchvision, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from optexp import nn
from optexp.errors import BadInput, nearest
from optexp.pairing import import_torchvision


class TorchvisionClassifier(nn.Module):
    """A classifier of torchvision with random initial weights: images [B, C, H, W] to logits [B, num_outputs].

    `input_shape` is (C, H, W); images with one channel are repeated to the three that these models take. Vision
    transformers are built for the size of the images; auxiliary classifiers (GoogLeNet, Inception) are left out.
    torchvision's dropout and stochastic depth are replaced by ours, which repeat their masks after a resume.
    Raises BadInput for an unknown name, and when the model cannot take images of this size.
    """

    reads = ("images",)

    def __init__(self, input_shape: tuple[int, int, int], num_outputs: int, name: str) -> None:
        super().__init__()
        models = import_torchvision().models
        known = models.list_models(module=models)
        if name not in known:
            raise BadInput(
                f"model.name={name}: torchvision has no such classifier{nearest(name, known)}; "
                f"it has {len(known)}, such as resnet50, convnext_tiny and vit_b_16"
            )
        options = {"num_classes": num_outputs} | _options(name, input_shape)
        try:
            self.classifier = models.get_model(name, weights=None, **options)
            _replace_dropout(self.classifier)
            self._try_shapes(input_shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            shape = " × ".join(map(str, input_shape))
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadInput(f"model.name={name}: does not take {shape} images: {reason}") from None

    def _try_shapes(self, input_shape: tuple[int, int, int]) -> None:
        """Run a batch of two without memory or arithmetic, because only a forward pass tells which sizes fit."""
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
        torch.func.functional_call(self, on_meta, torch.empty(2, *input_shape, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        return self.classifier(x)


def _options(name: str, input_shape: tuple[int, int, int]) -> dict[str, object]:
    """Return the arguments with which a family of models is told the size of the images, or to have one output only."""
    if name.startswith("vit_"):
        return {"image_size": input_shape[1]}
    if name.startswith("maxvit"):
        return {"input_size": input_shape[1:]}
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    return {}


def _replace_dropout(model: nn.Module) -> None:
    ours = {"Dropout": nn.Dropout, "StochasticDepth": nn.StochasticDepth}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if layer := ours.get(type(child).__name__):
                setattr(parent, name, layer(float(child.p)))  # type: ignore[arg-type]
