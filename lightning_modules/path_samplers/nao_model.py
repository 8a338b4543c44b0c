"""The encoder, predictor and decoder of neural architecture optimisation (NAO, Luo et al., NeurIPS 2018).

How data walks: an architecture becomes a sequence of tokens, the encoder turns it into one vector a decision, the
predictor reads their mean and says how good the architecture is, the decoder writes the architecture back. To improve
an architecture, its vectors move along the predictor's gradient and are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, nll_loss, normalize


class EncoderPredictorDecoder(nn.Module):
    """A continuous representation of architectures from which worth and architecture can be read.

    Every decision has tokens of its own (NAO's code shares one vocabulary between decisions of equal size), so that
    decisions may differ in size and whatever is decoded lies within the sizes. Initial weights depend on ``seed``
    alone, never on the global random state.

    Args:
        sizes: number of choices of each decision.
        hidden: of both LSTMs, one layer each (Landmark Regularization's code for cell benchmarks: 16).
        embedding: of a token (the same code: 12 (n - 1); 48 with n = 5 is assumed, n being unclear for cells that
            have no intermediate-node setting).
        predictor_width: of the predictor's two hidden layers (64).
        dropout: on the embeddings and in the predictor (0.1).
        seed: of the initial weights.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        hidden: int = 16,
        embedding: int = 48,
        predictor_width: int = 64,
        dropout: float = 0.1,
        seed: int = 0,
    ):
        super().__init__()
        self.sizes = tuple(sizes)
        vocabulary = sum(self.sizes)
        offsets = torch.tensor([sum(self.sizes[:t]) for t in range(len(self.sizes))])
        token = torch.arange(vocabulary)
        foreign = (token < offsets[:, None]) | (token >= (offsets + torch.tensor(self.sizes))[:, None])
        self.offsets: Tensor
        self.forbidden: Tensor
        self.register_buffer("offsets", offsets, persistent=False)
        # Finite, so that no gradient becomes 0 times infinity.
        self.register_buffer("forbidden", -1e9 * foreign.float(), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.embedding = nn.Embedding(vocabulary + 1, embedding)  # one more: the decoder's first input
            self.encoder = nn.LSTM(embedding, hidden, batch_first=True)
            self.decoder = nn.LSTM(embedding, hidden, batch_first=True)
            self.attended = nn.Linear(2 * hidden, hidden)
            self.output = nn.Linear(hidden, vocabulary)
            self.predictor = nn.Sequential(
                nn.Linear(hidden, predictor_width),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(predictor_width, predictor_width),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(predictor_width, 1),
                nn.Sigmoid(),
            )
        self.dropout = nn.Dropout(dropout)

    def encode(self, archs: Tensor) -> Tensor:
        """Architectures, int64 ``[n, decisions]``, to unit vectors ``[n, decisions, hidden]``."""
        states, _ = self.encoder(self.dropout(self.embedding(archs + self.offsets)))
        return normalize(states, dim=-1)

    def predict(self, memory: Tensor) -> Tensor:
        """Encoded architectures ``[n, decisions, hidden]`` to their worth ``[n]``, in (0, 1)."""
        return self.predictor(_summary(memory)).squeeze(-1)

    def forward(self, archs: Tensor) -> tuple[Tensor, Tensor]:
        """Read worth and architecture from the representation of architectures.

        Args:
            archs: int64 ``[n, decisions]``.

        Returns:
            The predicted worth ``[n]``, and the decoder's log-probabilities ``[n, decisions, tokens]`` of each
            decision's token given the true ones before it.
        """
        memory = self.encode(archs)
        previous = torch.cat(
            [torch.full_like(archs[:, :1], self.output.out_features), (archs + self.offsets)[:, :-1]], dim=1
        )
        summary = _summary(memory).unsqueeze(0)
        logits, _ = self._decoded(previous, memory, (summary, summary))
        return self.predict(memory), (logits + self.forbidden).log_softmax(-1)

    @torch.no_grad()
    def decode(self, memory: Tensor) -> Tensor:
        """Encoded architectures ``[n, decisions, hidden]`` to the likeliest ones, int64 ``[n, decisions]``: greedy."""
        summary = _summary(memory).unsqueeze(0)
        state = (summary, summary)
        token = torch.full((len(memory), 1), self.output.out_features)
        tokens = []
        for forbidden in self.forbidden:
            logits, state = self._decoded(token, memory, state)
            token = (logits + forbidden).argmax(-1)
            tokens.append(token)
        return torch.cat(tokens, dim=1) - self.offsets

    def ascended(self, archs: Tensor, step_sizes: Sequence[float]) -> Tensor:
        """Move architectures along the predictor's gradient and decode where they arrive.

        Args:
            archs: int64 ``[n, decisions]``.
            step_sizes: how far along the gradient; NAO's code takes 1, 2, ... until it has enough new architectures.

        Returns:
            Int64 ``[step sizes, n, decisions]``; each is within the sizes, though a space may rule it out.
        """
        self.eval()
        with torch.enable_grad():
            memory = self.encode(archs).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.predict(memory).sum(), memory)
        moved = torch.stack([memory.detach() + size * gradient for size in step_sizes])
        return self.decode(normalize(moved, dim=-1).flatten(0, 1)).unflatten(0, moved.shape[:2])

    def _decoded(
        self, tokens: Tensor, memory: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits ``[n, t, tokens]`` after ``t`` input tokens, and the LSTM's state.

        Attention reads the memory after the LSTM and is not fed back into it, so that training takes one LSTM call.
        """
        states, state = self.decoder(self.dropout(self.embedding(tokens)), state)
        attention = (states @ memory.transpose(1, 2)).softmax(-1) @ memory
        return self.output(self.attended(torch.cat([attention, states], dim=-1)).tanh()), state


def _summary(memory: Tensor) -> Tensor:
    """``[n, decisions, hidden]`` to a unit vector ``[n, hidden]``."""
    return normalize(memory.mean(1), dim=-1)


def fit(
    model: EncoderPredictorDecoder,
    archs: Tensor,
    worth: Tensor,
    epochs: int = 1000,
    batch_size: int = 100,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    gradient_clip: float = 5.0,
    trade_off: float = 0.8,
    seed: int = 0,
) -> float:
    """Train the model on architectures and their worth: ``trade_off * MSE + (1 - trade_off) * NLL`` (NAO, eq. 4).

    Defaults are those of Landmark Regularization's code; its repeating of every sequence eight times is left out.

    Args:
        model: trained in place, with Adam.
        archs: int64 ``[n, decisions]``.
        worth: ``[n]``; normalised here to [0, 1].
        epochs: passes over the architectures.
        batch_size: architectures a step.
        learning_rate: of Adam.
        weight_decay: of Adam.
        gradient_clip: largest norm of all gradients together.
        trade_off: weight of the predictor's error.
        seed: of the order and of dropout, which are all that is drawn.

    Returns:
        Mean loss of the last epoch; NaN without any.
    """
    target = (worth - worth.min()) / (worth.max() - worth.min()).clamp(min=1e-12)
    target = target.to(torch.float32)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    model.train()
    losses: list[Tensor] = []
    # Dropout knows only the global random state, which is put back afterwards.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        for _ in range(epochs):
            losses = []
            for batch in torch.randperm(len(archs)).split(batch_size):
                predicted, log_probs = model(archs[batch])
                tokens = (archs[batch] + model.offsets).flatten()
                loss = trade_off * mse_loss(predicted, target[batch])
                loss = loss + (1 - trade_off) * nll_loss(log_probs.flatten(0, 1), tokens)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, gradient_clip)
                optimizer.step()
                losses.append(loss.detach())
    model.eval()
    return float(torch.stack(losses).mean()) if losses else float("nan")
