"""A recurrent language model around any cell: embedding, cell, and a classifier that shares the embedding's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.networks.recurrent_cells import Masks

_SPREAD = 0.1
"""Embeddings begin uniformly between this and its negative (DARTS' public code)."""


@dataclass(frozen=True)
class Dropout:
    """How much is left out in training; the defaults leave out nothing.

    DARTS' public code has inputs 0.2, cell 0.75, hidden 0.25 and outputs 0.75, in the search and in the final training.

    Attributes:
        words: of the vocabulary, each of them everywhere in a batch.
        inputs: of the embedded words, the same features at every step.
        cell: of the input where the cell reads it, the same features at every step.
        hidden: of the states where the cell reads them, the same features at every step.
        outputs: of the states before the classifier, the same features at every step.
    """

    words: float = 0.0
    inputs: float = 0.0
    cell: float = 0.0
    hidden: float = 0.0
    outputs: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"dropout.{name} is {value}, allowed: 0 up to, not including, 1")


class Reading(NamedTuple):
    """What a language model makes of words.

    Attributes:
        logits: of the word behind each, ``[batch, time, vocabulary]``.
        states: of the cell behind each, ``[batch, time, hidden]``.
        dropped: the states as the classifier reads them.
    """

    logits: Tensor
    states: Tensor
    dropped: Tensor


class LanguageModel(nn.Module):
    """Predicts the next word (or character) from all before it.

    Args:
        build_cell: (inputs, hidden) to a module from (input, last state, `Masks` or None) to the next state.
        vocabulary: how many different words there are.
        hidden: features of a state, and of an embedded word.
        dropout: in training.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        build_cell: Callable[[int, int], nn.Module],
        vocabulary: int,
        hidden: int = 850,
        dropout: Dropout = Dropout(),
    ):
        super().__init__()
        if vocabulary < 2 or hidden < 1:
            raise ValueError(f"vocabulary is {vocabulary} and hidden {hidden}, at least 2 and 1 are needed")
        self.words, self.hidden, self.dropout = vocabulary, hidden, dropout
        self.embedding = nn.Embedding(vocabulary, hidden)
        nn.init.uniform_(self.embedding.weight, -_SPREAD, _SPREAD)
        self.cell = build_cell(hidden, hidden)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, words: Tensor) -> Tensor:
        """Int64 ``[batch, time]`` to logits of the next words ``[batch, time, vocabulary]``, from a state of zeros."""
        return self.read(words).logits

    def read(self, words: Tensor, state: Tensor | None = None) -> Reading:
        """Go on from a state.

        Args:
            words: int64 ``[batch, time]``.
            state: ``[batch, hidden]``, the last one of what stood before; None for zeros.
        """
        batch, drop = words.shape[0], self.dropout  # an exporter follows shapes, and not len()
        table = self.embedding.weight
        if self.training and drop.words:
            table = table * self._mask(drop.words, len(table), 1)
        inputs = functional.embedding(words, table) * self._mask(drop.inputs, batch, 1, self.hidden)
        masks = None
        if self.training and (drop.cell or drop.hidden):
            masks = Masks(self._mask(drop.cell, batch, self.hidden), self._mask(drop.hidden, batch, self.hidden))
        if state is None:
            state = inputs.new_zeros(batch, self.hidden)
        states = []
        for x in inputs.unbind(1):
            state = self.cell(x, state, masks)
            states.append(state)
        seen = torch.stack(states, 1)
        dropped = seen * self._mask(drop.outputs, batch, 1, self.hidden)
        return Reading(functional.linear(dropped, self.embedding.weight, self.bias), seen, dropped)

    def _mask(self, share: float, *shape: int) -> Tensor:
        """Factors that drop a share and make up for it; a single 1 outside of training."""
        like = self.embedding.weight
        if not (self.training and share):
            return like.new_ones(())
        return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(1 - share) / (1 - share)
