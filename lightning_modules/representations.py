"""What a network makes of images: the activations that a similarity between representations compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.spelling import nearest


def represent(network: nn.Module, images: Tensor, layers: Sequence[str] = (), batch_size: int = 32) -> Tensor:
    """The activations of a network, in whichever mode it is, without gradients.

    Args:
        network: takes a batch of images.
        images: float32 ``[n, channels, height, width]``, normalised as the network wants them.
        layers: names of modules whose outputs are taken, side by side. Without any, what the network itself calls its
            ``representation(images)``; else what its last linear layer is given, the features that a classifier
            classifies by; else its output.
        batch_size: images at a time.

    Returns:
        Float32 ``[n, units]``.

    Raises:
        ValueError: there is no such layer, or nothing passed through it.
    """
    with torch.no_grad():
        parts = [_represent(network, part, layers) for part in images.split(batch_size)]
    return torch.cat(parts)


def _represent(network: nn.Module, images: Tensor, layers: Sequence[str]) -> Tensor:
    own = getattr(network, "representation", None)
    if not layers and callable(own):
        return _flat(own(images))
    known = dict(network.named_modules())
    for name in layers:
        if name not in known or not name:
            raise ValueError(
                f"layers: the network has no module '{name}'{nearest(name, [each for each in known if each])}"
            )
    taken: dict[str, Tensor] = {}

    def output_of(name: str) -> Any:
        def take(module: nn.Module, inputs: Any, output: Any) -> None:
            taken[name] = _flat(output)

        return take

    def take_input(module: nn.Module, inputs: Any) -> None:
        taken["last"] = _flat(inputs)

    hooks = [known[name].register_forward_hook(output_of(name)) for name in layers]
    if not layers:
        linear = [each for each in known.values() if isinstance(each, nn.Linear)]
        hooks += [each.register_forward_pre_hook(take_input) for each in linear]  # the last one that is called stays
    try:
        output = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [name for name in layers if name not in taken]:
        raise ValueError(f"layers: nothing passed through '{missing[0]}'")
    if not layers:
        return taken.get("last", _flat(output))
    return torch.cat([taken[name] for name in layers], dim=1)


def _flat(value: Any) -> Tensor:
    """Of whatever a module gives or is given, the tensors side by side: ``[n, units]``."""
    if isinstance(value, Tensor):
        return value.flatten(1).float()
    parts = value.values() if isinstance(value, dict) else value
    return torch.cat([_flat(each) for each in parts], dim=1)
