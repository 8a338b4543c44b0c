"""PredNet (Lotter, Kreiman and Cox, ICLR 2017): a recurrent network that predicts the next frame of a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

STILL_STEPS = 10
"""So often a still image is shown, as to the networks of Blanchard et al. (CVPR 2019)."""
_GATES = 4


@dataclass(frozen=True)
class Filters:
    """Sides of the quadratic filters, in pixels.

    Attributes:
        targets: of the convolutions that make the target of each layer but the lowest, from below.
        predictions: of those that predict it, of each layer.
        representations: of the convolutional LSTM of each layer.
    """

    targets: tuple[int, ...]
    predictions: tuple[int, ...]
    representations: tuple[int, ...]

    @classmethod
    def all(cls, size: int, layers: int) -> Filters:
        """One size everywhere."""
        return cls((size,) * (layers - 1), (size,) * layers, (size,) * layers)


@dataclass(frozen=True)
class State:
    """What a PredNet knows between two frames, layer by layer from below.

    Attributes:
        representations: R, ``[batch, channels, height, width]``.
        cells: of the LSTMs, likewise.
        errors: E, with twice the channels.
    """

    representations: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]
    errors: tuple[Tensor, ...]


class SameConvolution(nn.Conv2d):
    """A convolution that keeps height and width; a side of an even number pads one pixel more below and to the right.

    Args:
        inputs: channels.
        outputs: channels.
        size: side of the filters.
    """

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__(inputs, outputs, size, padding=size // 2 if size % 2 else 0)
        before, behind = (size - 1) // 2, size // 2
        self._sides = () if size % 2 else (before, behind, before, behind)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, inputs, height, width]`` to ``[batch, outputs, height, width]``."""
        return super().forward(functional.pad(x, self._sides) if self._sides else x)


class PredNet(nn.Module):
    """A stack of layers, each of which predicts its target and hands on what it got wrong.

    In layer ``l`` the representation R is a convolutional LSTM over itself, the layer's last error and the
    representation above; the prediction is ``relu(conv(R))``, in the lowest layer at most 1; the error E is what the
    target exceeds the prediction by and what it falls short by, side by side; and the target above is the max-pooled
    ``relu(conv(E))``. The lowest target is the frame. At each frame representations are updated from the top down, then
    errors from below. All states begin with zeros.

    Layers halve the resolution. Sides that are odd are rounded up, which PredNet does not have to; for those that halve
    evenly the network is the published one: of channels (3, 48, 96, 192) with filters of 3 it has 6,915,948 parameters.

    Args:
        channels: of each layer's target and representation, from below; the first are the frames'.
        filters: their sizes; None for 3 everywhere.
        still_steps: so often a still image is shown.
        learning_rate: that it is best trained with, where somebody has decided that; nothing here depends on it.

    Raises:
        ValueError: numbers of layers differ, or a number is below 1.
    """

    def __init__(
        self,
        channels: Sequence[int] = (3, 48, 96, 192),
        filters: Filters | None = None,
        still_steps: int = STILL_STEPS,
        learning_rate: float | None = None,
    ):
        super().__init__()
        count = len(channels)
        filters = filters or Filters.all(3, count)
        given = (len(filters.targets) + 1, len(filters.predictions), len(filters.representations))
        if count < 1 or given != (count,) * 3:
            raise ValueError(f"filters are for {given} layers, channels for {count}")
        if min(*channels, still_steps, *filters.targets, *filters.predictions, *filters.representations) < 1:
            raise ValueError("channels, filters and still_steps must be at least 1")
        self.channels, self.still_steps = tuple(channels), still_steps
        self.learning_rate = learning_rate
        above = (*self.channels[1:], 0)
        self.lstms = nn.ModuleList(
            SameConvolution(3 * own + upper, _GATES * own, size)
            for own, upper, size in zip(self.channels, above, filters.representations, strict=True)
        )
        self.predictions = nn.ModuleList(
            SameConvolution(own, own, size) for own, size in zip(self.channels, filters.predictions, strict=True)
        )
        self.targets = nn.ModuleList(
            SameConvolution(2 * lower, own, size)
            for lower, own, size in zip(self.channels, self.channels[1:], filters.targets, strict=False)
        )
        for layer in (*self.lstms, *self.predictions, *self.targets):
            # Keras' defaults, with which PredNet was trained (recalled): of random biases some predictions start dead.
            parts = layer.weight.chunk(_GATES) if layer in self.lstms else [layer.weight]
            for weight in parts:
                nn.init.xavier_uniform_(weight)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """What is predicted of each frame from those before it; of still images, of the last time they are shown.

        Args:
            frames: float32 ``[batch, time, channels, height, width]`` in 0 to 1; or still images, without ``time``.

        Returns:
            In the form of the frames.
        """
        predictions = [prediction for prediction, _ in self.watch(frames)]
        return predictions[-1] if frames.ndim == 4 else torch.stack(predictions, dim=1)

    def representation(self, images: Tensor) -> Tensor:
        """All layers' representations when still images were shown for the last time, side by side.

        Args:
            images: float32 ``[n, channels, height, width]`` in 0 to 1.

        Returns:
            Float32 ``[n, units]``.
        """
        return torch.cat([each.flatten(1) for each in self.last_state(images).representations], dim=1)

    def highest_representation(self, images: Tensor) -> Tensor:
        """As `representation`, of the highest layer alone."""
        return self.last_state(images).representations[-1].flatten(1)

    def last_state(self, images: Tensor) -> State:
        """The state when still images ``[n, channels, height, width]`` were shown for the last time."""
        return [state for _, state in self.watch(images)][-1]

    def watch(self, frames: Tensor) -> Iterator[tuple[Tensor, State]]:
        """Frame by frame the prediction that was made of it, and the state after it was seen; see `forward`."""
        sequence = [frames] * self.still_steps if frames.ndim == 4 else frames.unbind(1)
        state = self._begin(sequence[0])
        for frame in sequence:
            prediction, state = self._step(frame, state)
            yield prediction, state

    def _begin(self, frame: Tensor) -> State:
        height, width = frame.shape[-2:]
        cells, errors = [], []
        for own in self.channels:
            cells.append(frame.new_zeros(frame.shape[0], own, height, width))
            errors.append(frame.new_zeros(frame.shape[0], 2 * own, height, width))
            height, width = -(-height // 2), -(-width // 2)
        return State(tuple(cells), tuple(cells), tuple(errors))

    def _step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        layers = range(len(self.channels))
        representations, cells = list(state.representations), list(state.cells)
        for layer in reversed(layers):
            inputs = [representations[layer], state.errors[layer]]
            if layer + 1 < len(layers):
                inputs.append(_doubled(representations[layer + 1], inputs[0]))
            gates = self.lstms[layer](torch.cat(inputs, dim=1))
            keep, write, show, new = gates.chunk(_GATES, dim=1)
            cells[layer] = _hard_sigmoid(keep) * cells[layer] + _hard_sigmoid(write) * torch.tanh(new)
            representations[layer] = _hard_sigmoid(show) * torch.tanh(cells[layer])
        target, errors, lowest = frame, [], frame
        for layer in layers:
            prediction = torch.relu(self.predictions[layer](representations[layer]))
            if layer == 0:
                prediction = lowest = prediction.clamp(max=1)
            error = torch.cat([torch.relu(prediction - target), torch.relu(target - prediction)], dim=1)
            errors.append(error)
            if layer + 1 < len(layers):
                target = functional.max_pool2d(torch.relu(self.targets[layer](error)), 2, ceil_mode=True)
        return lowest, State(tuple(representations), tuple(cells), tuple(errors))


def _hard_sigmoid(x: Tensor) -> Tensor:
    """Keras' at the time of PredNet, whose slope is 1/5; torch's is 1/6."""
    return (0.2 * x + 0.5).clamp(0, 1)


def _doubled(upper: Tensor, like: Tensor) -> Tensor:
    """Each pixel four times, less what sticks out where a side is odd."""
    doubled = functional.interpolate(upper, scale_factor=2, mode="nearest")
    return doubled[..., : like.shape[-2], : like.shape[-1]]
