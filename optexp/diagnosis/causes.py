"""The vocabulary: every cause a diagnosis may name, and what it means."""

from __future__ import annotations

CAUSES: dict[str, str] = {
    "step-too-small": "the updates are so small that the weights cannot travel far enough within the run",
    "step-too-large": "the updates overshoot: the loss rises or jumps about, or the weights are blown up",
    "dampened-momentum": "dampening takes back the factor 1/(1 − momentum) that momentum gives to the step",
    "weight-decay-too-strong": "decay pulls the weights to zero faster than the loss can build them up",
    "clipping-dominates": "nearly every gradient is cut to a small part of itself, which shrinks the step as much",
    "vanishing-gradients": "gradients fade from layer to layer, so that the early layers do not learn",
    "exploding-gradients": "gradients grow from layer to layer or step to step, whatever the learning rate",
    "dead-units": "many units never pass a gradient on, and so never change",
    "overfitting": "the training loss falls while the validation loss rises or stays far above it",
    "late-oscillation": "a learning rate that was good at first is too large for the end, where the loss jumps about",
    "schedule-ended-early": "the learning rate was near zero long before the loss had come down",
    "warmup-too-long": "most of the run was spent raising the learning rate",
    "frozen-parameters": "a large part of the model is not trained",
    "l2-coupled-to-adaptive-step": "the L2 penalty is divided by the gradient's size, so that it outweighs the loss",
    "adaptive-step-exhausted": "Adagrad's sum of squared gradients, or its lr_decay, has used up the step",
    "noise-dominated-batch": "the batch is so small that gradients are mostly noise",
    "no-signal-in-data": "the labels carry no information about the inputs that could be learned",
    "bad-input-scale": "the inputs are far from mean 0 and deviation 1",
    "epsilon-too-large": "eps exceeds the gradients, so that the adaptive rule shrinks instead of normalizing",
}
"""Cause to its meaning, in words that follow "because"."""
