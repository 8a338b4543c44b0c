"""One untrained network, and what several zero-cost proxies need of it, each computed once.

Most proxies are sums over the same gradients, or are read off the same forward pass. A `Probe` holds one network and
does each pass when it is first asked for; what it gives does not depend on who has asked before.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from search.randomness import derive_seed

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers whose weights proxies are sums over."""
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
"""Normalisation layers."""
_RECTIFIERS = ("relu", "relu_", "relu6")
"""Functions, by name, whose units are on or off."""


@dataclass(frozen=True)
class LayerPass:
    """What one weighted layer did in a pass forward and back.

    Attributes:
        weight: of the layer, ``[outputs, ...]``.
        gradient: of the loss by the weight; zeros where the layer has no part in the loss.
        outputs: what the layer gave, each ``[batch, outputs, ...]``: one a call.
        output_gradients: of the loss by these, in the same shapes.
    """

    weight: Tensor
    gradient: Tensor
    outputs: tuple[Tensor, ...]
    output_gradients: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Forward:
    """One pass forward in training mode, whose graph is kept."""

    images: Tensor
    logits: Tensor
    loss: Tensor | None
    agreement: Tensor
    outputs: dict[int, list[Tensor]]


class Probe:
    """An untrained network, measured in training mode.

    Args:
        network: as it was built. It keeps its weights: who needs others takes a `copy`.
        seed: of what is drawn for this network; see `generator`.
        batch: gives the training batch of a number, ``(images, labels)``.
        image_shape: ``(channels, height, width)`` of images.
    """

    def __init__(self, network: nn.Module, seed: int, batch: Callable[[int], Any], image_shape: tuple[int, ...]):
        # Pixel by pixel images and weights take two thirds of the time.
        self.network = network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.seed, self.image_shape = seed, image_shape
        self._batch = batch

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU, the same for this network and purpose whatever else is measured."""
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose))

    def noise(self, images: int, generator: torch.Generator) -> Tensor:
        """Images of Gaussian noise of mean 0 and variance 1: float32 ``[images, channels, height, width]``."""
        return _by_pixel(torch.randn(images, *self.image_shape, generator=generator).to(self.device))

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Images ``[batch, channels, height, width]`` and labels ``[batch]`` of a training batch, counted from 0."""
        images, labels = images_and_labels(self._batch(number))
        return _by_pixel(images), labels

    def copy(self) -> nn.Module:
        """The network again, to be changed at will."""
        return copy.deepcopy(self.network)

    def layers(self, network: nn.Module | None = None) -> list[Any]:
        """The weighted layers, in the order of their names in the network; also those without a part in its output."""
        return [module for module in (network or self.network).modules() if isinstance(module, WEIGHTED)]

    # ---- passes ----------------------------------------------------------------------------------------------------

    @cached_property
    def _forward(self) -> _Forward:
        return self._pass(0)

    def _pass(self, number: int) -> _Forward:
        images, labels = images_and_labels(self._batch(number))
        images = _by_pixel(images.detach().clone()).requires_grad_()
        outputs: dict[int, list[Tensor]] = {}
        hooks = [
            layer.register_forward_hook(lambda _, __, output, k=k: outputs.setdefault(k, []).append(output))
            for k, layer in enumerate(self.layers())
        ]
        try:
            with Agreement(len(images)) as agreement:
                logits = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        loss = nn.functional.cross_entropy(logits, labels) if logits.dim() == 2 else None
        return _Forward(images, logits, loss, agreement.matrix, outputs)

    @property
    def agreement(self) -> Tensor:
        """In how many units each two images agree, both on or both off: float64 ``[batch, batch]``; see `Agreement`."""
        return self._forward.agreement

    @cached_property
    def agreement_of_all(self) -> Tensor:
        """The same with the units of edges that do not reach a cell's output."""
        images, _ = images_and_labels(self._batch(0))
        cells = [module for module in self.network.modules() if hasattr(module, "compute_unused")]
        try:
            for cell in cells:
                vars(cell)["compute_unused"] = True
            with torch.no_grad(), Agreement(len(images)) as agreement:
                self.network(_by_pixel(images))
        finally:
            for cell in cells:
                vars(cell).pop("compute_unused", None)
        return agreement.matrix

    @cached_property
    def input_gradients(self) -> Tensor:
        """The gradient of the sum of all logits by each image: float32 ``[batch, channels * height * width]``."""
        forward = self._forward
        (gradient,) = torch.autograd.grad(forward.logits.sum(), forward.images, retain_graph=True, allow_unused=True)
        return (torch.zeros_like(forward.images) if gradient is None else gradient).flatten(1)

    @cached_property
    def passes(self) -> list[LayerPass]:
        """What each weighted layer did for the cross-entropy of the first batch, in the order of `layers`."""
        return self._back(self._forward, retain=True)

    def gradients(self, number: int) -> list[Tensor]:
        """The gradient of the cross-entropy of a batch by each weighted layer's weight.

        Args:
            number: of the batch, from 0.
        """
        passes = self.passes if number == 0 else self._back(self._pass(number))
        return [each.gradient for each in passes]

    def _back(self, forward: _Forward, retain: bool = False) -> list[LayerPass]:
        layers = self.layers()
        flat = [(k, output) for k in range(len(layers)) for output in forward.outputs.get(k, ())]
        weights = [layer.weight for layer in layers]
        wanted = [*weights, *(output for _, output in flat)]
        found = torch.autograd.grad(labelled(forward.loss), wanted, retain_graph=retain, allow_unused=True)
        given = [
            torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(wanted, found, strict=True)
        ]
        by_layer: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for (k, output), gradient in zip(flat, given[len(layers) :], strict=True):
            by_layer.setdefault(k, []).append((output.detach(), gradient))
        return [
            LayerPass(
                weight.detach(),
                given[k],
                tuple(output for output, _ in by_layer.get(k, ())),
                tuple(gradient for _, gradient in by_layer.get(k, ())),
            )
            for k, weight in enumerate(weights)
        ]

    @cached_property
    def curvature(self) -> list[Tensor]:
        """The Hessian of the first batch's cross-entropy times its gradient, by each weighted layer's weight."""
        weights = [layer.weight for layer in self.layers()]
        loss = labelled(self._forward.loss)
        gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        product = sum((each.detach() * each).sum() for each in gradients if each is not None)
        if not isinstance(product, Tensor) or not product.requires_grad:
            return [torch.zeros_like(weight) for weight in weights]
        # The graph of the pass stays for whoever reads from it next.
        found = torch.autograd.grad(product, weights, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(w) if each is None else each for w, each in zip(weights, found, strict=True)]


def _by_pixel(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """The two tensors of a batch of classification.

    Raises:
        ValueError: it is another kind of batch.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(each, Tensor) for each in batch):
        return batch[0], batch[1]
    raise ValueError(f"a batch of images with labels is needed, 'data' gives a {type(batch).__name__}")


def labelled(loss: Tensor | None) -> Tensor:
    """The loss of a pass.

    Raises:
        ValueError: the network gives no logits of classes.
    """
    if loss is None:
        raise ValueError("cross-entropy needs logits [batch, classes]; networks of this space give something else")
    return loss


class Agreement(TorchFunctionMode):
    """In how many rectified units two images agree, over everything that is rectified while it is entered.

    For each rectification with ``n`` units an image, two images whose patterns differ in ``d`` units agree in
    ``n - d``. Whether a layer or a function rectifies makes no difference.

    Args:
        images: of a batch.

    Attributes:
        matrix: float64 ``[images, images]`` on the CPU: the sum over all rectifications.
    """

    def __init__(self, images: int):
        super().__init__()
        self.matrix = torch.zeros(images, images, dtype=torch.float64)
        self._images = images

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; of one that rectifies, look at what comes out."""
        result = function(*args, **(kwargs or {}))
        if _rectifies(function, kwargs or {}) and len(result) == self._images:
            # A unit is 1 where it is on and -1 where it is off: the product of two patterns is n - 2 d. Whole numbers,
            # which float32 holds exactly up to 2^24.
            signs = (result.detach() > 0).flatten(1).float().mul_(2).sub_(1)
            self.matrix += ((signs @ signs.T).double().cpu() + signs.shape[1]) / 2
        return result


def _rectifies(function: Any, named: Mapping[str, Any]) -> bool:
    name = getattr(function, "__name__", "")
    # What is cut off below at 0, and above at 6 for instance, comes with its limits by name.
    return name in _RECTIFIERS or (name == "hardtanh" and named.get("min_val") == 0)


def log_or_nan(value: float) -> float:
    """The logarithm of a number above 0, NaN of any other: there is no value then."""
    return math.log(value) if 0 < value < math.inf else math.nan
