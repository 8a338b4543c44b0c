"""Evolution whose mutations a controller learns to choose (RENAS; Chen et al., CVPR 2019)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from search.agents.base import Agent
from search.agents.recurrent.mutator import Mutator
from search.agents.recurrent.policy_gradient import MovingBaseline, StackedAdam
from search.evaluation import Proposal
from search.spaces.base import SearchSpace


class ReinforcedEvolution(Agent):
    """Tournament evolution with a learned mutation, and children that may inherit their parent's weights.

    The first ``population`` architectures are random. Each later one is a child of the best of a random sample of the
    population; a controller chooses the decisions that change, and to what. A child joins the population, out of which
    the worst of a random sample falls. The controller learns by REINFORCE from what its children are worth.

    RENAS' search code is not public, and the paper's settings are not known here: those marked assumed are what is
    usual for tournament evolution (Real et al., AAAI 2019) and for such controllers.

    Args:
        space: what can be asked.
        trials: how many independent searchers advance together.
        seed: the seed of trial 0; trial ``k`` has seed ``seed + k``.
        mutation: ``learned``, or ``uniform`` for the control: the same evolution, in which nothing is learned.
        group: one decision of every ``group`` changes, in each group of neighbours; 4 are a node of `RENAS`. None for
            a single change in all.
        inherit: whether proposals name the parent, whose weights the child inherits; the task must honour it.
        population: P [assumed].
        tournament: S, drawn with replacement [assumed].
        credit: what a child is compared with: ``parent``, its parent's reward [assumed]; or ``baseline``, a moving
            average of rewards, as is usual of REINFORCE.
        batch: children between two steps of the controller [assumed].
        hidden: units of the controller's LSTMs [assumed].
        layers: of the same [assumed].
        learning_rate: Adam's [assumed: with ``credit``, the best of seven settings, experiments/renas/README.md].
        entropy: weight of the mean entropy of the controller's choices, in nats [assumed].
        momentum: of the baseline [assumed].
        scale: initial weights are uniform in [-scale, scale] [assumed].
        gradient_clip: largest norm of a trial's gradient [assumed].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        trials: int = 1,
        seed: int = 0,
        mutation: Literal["learned", "uniform"] = "learned",
        group: int | None = None,
        inherit: bool = False,
        population: int = 20,
        tournament: int = 5,
        credit: Literal["baseline", "parent"] = "parent",
        batch: int = 5,
        hidden: int = 16,
        layers: int = 1,
        learning_rate: float = 0.03,
        entropy: float = 0.02,
        momentum: float = 0.95,
        scale: float = 0.1,
        gradient_clip: float = 1.0,
    ):
        super().__init__(space, trials, seed)
        for name, value, allowed in (
            ("mutation", mutation, ("learned", "uniform")),
            ("credit", credit, ("baseline", "parent")),
        ):
            if value not in allowed:
                raise ValueError(f"ReinforcedEvolution: {name} is '{value}', allowed: {', '.join(allowed)}")
        numbers = {"population": population, "tournament": tournament, "batch": batch, "hidden": hidden}
        for name, number in (numbers | {"layers": layers, "group": 1 if group is None else group}).items():
            if number < 1:
                raise ValueError(f"ReinforcedEvolution: {name} is {number}, at least 1 is needed")
        if learning_rate <= 0 or gradient_clip <= 0 or scale <= 0 or entropy < 0 or not 0 <= momentum < 1:
            raise ValueError(
                "ReinforcedEvolution: learning_rate, gradient_clip and scale must be above 0, entropy at least 0, and "
                "momentum in [0, 1)"
            )
        if inherit:
            self.demands = frozenset({"parent"})
        self.uniform, self.inherit, self.credit = mutation == "uniform", inherit, credit
        self.population, self.tournament, self.batch, self.entropy = population, tournament, batch, entropy
        self._sizes = (len(space.decisions) if group is None else group, hidden, layers, scale)
        self._learning_rate, self._momentum, self._gradient_clip = learning_rate, momentum, gradient_clip
        self._forget()

    @classmethod
    def toy(cls) -> dict[str, Any]:
        """A small controller, and a population that is soon full."""
        return {"population": 6, "tournament": 2, "batch": 3, "hidden": 4}

    def _forget(self) -> None:
        self.mutator = Mutator(self.space, self.rng, *self._sizes)
        self._adam = StackedAdam(self.mutator, self._learning_rate, self._gradient_clip)
        self._baseline = MovingBaseline(self.trials, self._momentum)
        steps = len(self.space.decisions)
        self._members = torch.zeros(self.trials, 0, steps, dtype=torch.long)
        self._fitness = torch.zeros(self.trials, 0, dtype=torch.float64)
        self._asked = 0
        # Children that were not told yet, and those that the controller has not learned from: parent, where, child.
        self._pending = self._no_children()
        self._told = self._no_children()
        self._parent_rewards = {name: torch.zeros(self.trials, 0, dtype=torch.float64) for name in ("pending", "told")}
        self._rewards = torch.zeros(self.trials, 0, dtype=torch.float64)

    def _no_children(self) -> dict[str, Tensor]:
        sizes = {"parent": len(self.space.decisions), "where": len(self.mutator.groups)}
        sizes["child"] = sizes["parent"]
        return {name: torch.zeros(self.trials, 0, size, dtype=torch.long) for name, size in sizes.items()}

    def begin_task(self, budget: int, adapting: bool) -> None:
        """Start from an empty population and a fresh controller."""
        super().begin_task(budget, adapting)
        self._forget()

    def ask(self, n: int = 1) -> Tensor:
        """Random architectures until the population can be full, then children; int64 ``[trials, n, decisions]``."""
        return self._propose(n)[0]

    def propose(self, n: int = 1) -> list[list[Proposal]]:
        """The same, with the parent of each child where weights are inherited."""
        archs, random = self._propose(n)
        if not self.inherit:
            return [[Proposal(tuple(arch)) for arch in row] for row in archs.tolist()]
        parents = self._pending["parent"][:, self._pending["parent"].shape[1] - (n - random) :].tolist()
        return [
            [Proposal(tuple(arch), parent=None if k < random else tuple(own[k - random])) for k, arch in enumerate(row)]
            for row, own in zip(archs.tolist(), parents, strict=True)
        ]

    def _propose(self, n: int) -> tuple[Tensor, int]:
        """Architectures, and how many of them, the first, are random."""
        members = self._members.shape[1]
        random = n if members == 0 else min(n, max(0, self.population - max(self._asked, members)))
        self._asked += n
        asked = [self.space.sample(self.rng, random)]
        if random < n:
            winner = self._sampled(n - random, best=True)
            parents = self._members.gather(1, winner.unsqueeze(-1).expand(-1, -1, self._members.shape[-1]))
            children, where = self.mutator.mutate(parents, self.rng, self.uniform)
            for name, value in (("parent", parents), ("where", where), ("child", children)):
                self._pending[name] = torch.cat([self._pending[name], value], 1)
            self._parent_rewards["pending"] = torch.cat(
                [self._parent_rewards["pending"], self._fitness.gather(1, winner)], 1
            )
            asked.append(children)
        return torch.cat(asked, dim=1), random

    def _sampled(self, n: int, best: bool) -> Tensor:
        """The best or the worst members of random samples: places, int64 ``[trials, n]``."""
        drawn = self.rng.integers(self._members.shape[1], n, self.tournament)
        fitness = self._fitness[:, None].expand(-1, n, -1).gather(-1, drawn)
        winner = fitness.argmax(-1, keepdim=True) if best else fitness.argmin(-1, keepdim=True)
        return drawn.gather(-1, winner).squeeze(-1)

    def learn(self, archs: Tensor, rewards: Tensor) -> None:
        """Children join the population, in which the worst of samples make room; then the controller learns."""
        for k in range(archs.shape[1]):
            one, reward = archs[:, k : k + 1], rewards[:, k : k + 1]
            self._baseline.add(reward)
            self._settle(one, reward)
            self._members = torch.cat([self._members, one], 1)
            self._fitness = torch.cat([self._fitness, reward], 1)
            if self._members.shape[1] > self.population:
                places = torch.arange(self._members.shape[1]).expand(self.trials, -1)
                kept = places[places != self._sampled(1, best=False)].view(self.trials, -1)
                self._members = self._members.gather(1, kept.unsqueeze(-1).expand(-1, -1, archs.shape[-1]))
                self._fitness = self._fitness.gather(1, kept)
            if self._rewards.shape[1] == self.batch:
                self._step()

    def _settle(self, told: Tensor, reward: Tensor) -> None:
        """A child is pending no more, and will be learned from; what comes from elsewhere is not."""
        found = (self._pending["child"] == told).all(-1).all(0).nonzero()
        if len(found) == 0:
            return
        place = int(found[0])
        left = torch.arange(self._pending["child"].shape[1]) != place
        for name, pending in self._pending.items():
            self._told[name] = torch.cat([self._told[name], pending[:, place : place + 1]], 1)
            self._pending[name] = pending[:, left]
        parents = self._parent_rewards
        parents["told"] = torch.cat([parents["told"], parents["pending"][:, place : place + 1]], 1)
        parents["pending"] = parents["pending"][:, left]
        self._rewards = torch.cat([self._rewards, reward], 1)

    def _step(self) -> None:
        """One step of REINFORCE on the children at hand."""
        if not self.uniform:
            if self.credit == "parent":
                gains = self._rewards - self._parent_rewards["told"]
                spread = gains.std(dim=1, keepdim=True, correction=0)
                advantages = gains / spread.clamp(min=1e-8)
            else:
                advantages = self._baseline.advantages(self._rewards)
            log_probs, entropies = self.mutator.log_probs(
                self._told["parent"], self._told["where"], self._told["child"]
            )
            surrogate = -(log_probs * advantages.unsqueeze(-1)).mean((1, 2))
            self._adam.step(surrogate - self.entropy * entropies.mean((1, 2)))
        self._told = self._no_children()
        self._parent_rewards["told"] = self._parent_rewards["told"][:, :0]
        self._rewards = self._rewards[:, :0]

    def state_dict(self) -> dict[str, Any]:
        """Population, controller, and the children that it has not learned from."""
        return super().state_dict() | {
            "mutator": self._adam.state_dict(),
            "baseline": self._baseline.state_dict(),
            "members": self._members.clone(),
            "fitness": self._fitness.clone(),
            "asked": self._asked,
            "pending": _cloned(self._pending),
            "told": _cloned(self._told),
            "parent_rewards": _cloned(self._parent_rewards),
            "rewards": self._rewards.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state`` was taken."""
        super().load_state_dict(state)
        self._adam.load_state_dict(state["mutator"])
        self._baseline.load_state_dict(state["baseline"])
        self._members, self._fitness = state["members"].clone(), state["fitness"].clone()
        self._asked, self._rewards = state["asked"], state["rewards"].clone()
        self._pending, self._told = _cloned(state["pending"]), _cloned(state["told"])
        self._parent_rewards = _cloned(state["parent_rewards"])


def _cloned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in tensors.items()}
