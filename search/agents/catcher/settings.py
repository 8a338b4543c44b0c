"""Every hyper-parameter of the CATCHer, with its source.

The paper's appendix, where most of these stood, is not public. "Paper" marks what its text states; "assumed" marks a
default of the method it builds on (PEARL, PPO, prioritised replay) or the outcome of the sweep on source tasks written
down in ``experiments/catch/README.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CatcherSettings:
    """Hyper-parameters of the CATCHer.

    Attributes:
        latent: dimensions of the context z. Paper, sec. 4.1.
        kl_weight: weight of the KL term of the joint objective. Paper, sec. 4.1.
        kl_per_reward: divide that weight by the number of rewards predicted, as in a bound on their probability: the
            objective takes their mean, so the paper's reading asks of a context to earn its nats with every single one.
            False, as the paper has it.
        kl_prefixes: of which histories the KL is taken: the whole one (``last``, PEARL) or the mean over all that a
            network is seen in (``all``).
        prior_factor: whether the standard normal prior is one of the factors of the posterior, which then narrows from
            it as evidence comes; False, as in PEARL, which has contexts of one size only.
        hidden: units of each hidden layer of all three networks. Assumed: between PPO's 64 and PEARL's 300.
        layers: hidden layers of each network. Assumed: PPO's 2.
        encoder_learning_rate: Adam. Assumed: sweep around PEARL's 3e-4.
        controller_learning_rate: Adam. Assumed: sweep around PEARL's 3e-4.
        evaluator_learning_rate: Adam. Assumed: sweep between 3e-4 and 3e-3.
        gradient_clip: largest gradient norm of one trial. Assumed: PPO implementations use 0.5.
        initial_networks: random networks that open a search; they count as evaluations. Paper, sec. 3.1 ("a few").
        candidates: networks the controller samples a step. Paper, sec. 3.2 (count not given).
        candidates_adapting: the same on a target; 0 for as many.
        mutations_adapting: share of these that are one-step mutations of the best three networks so far. 0, as in the
            paper.
        uniform_floor: share of every decision's probability that is spread evenly over the valid choices. 0, as in the
            paper, lets a choice die out.
        fallback: what is asked where no candidate is new: a ``random`` network, or a ``mutation`` of the best one.
        normalisation: rewards relative to the history (paper, sec. 3.1, formula not given): ``zscore``, or ``rank``,
            evenly spaced normal quantiles of the rank, which a single outlier cannot squash.
        clip: PPO's clipping range. Assumed: Schulman et al. 2017, 0.2.
        policy_updates: PPO epochs a step. Assumed: 4, as in common PPO implementations.
        policy_window: the most recent networks PPO learns from. Assumed: old networks are off-policy, and their
            negative advantages would push logits without bound.
        entropy_weight: entropy bonus of the controller. Assumed: sweep, from the 0.01 of common PPO implementations.
        evaluator_updates: evaluator batches a step. Assumed: sweep.
        replay_fraction: share of the memory drawn as a batch. Paper, sec. 4.1: 80%.
        replay_alpha: how strongly replay prefers large errors. Assumed: Schaul et al. 2015, 0.6.
        replay_beta: importance correction at the start of a task; it rises to 1 at its end. Assumed: Schaul et al.
            2015, 0.4.
        huber_delta: where the Huber loss turns linear, in normalised rewards. Assumed: 1.
        epsilon_start: probability of a random candidate at the start of a meta-training task. Paper: reset per task.
        epsilon_end: the same at the task's end. Assumed.
        epsilon_start_adapting: at the start of a target task: a meta-trained evaluator is trusted sooner. Assumed.
        epsilon_end_adapting: the same at its end. Assumed.
        double: compute in float64: batched and single trials then agree to rounding; half as fast.
    """

    latent: int = 10
    kl_weight: float = 0.1
    kl_per_reward: bool = False
    kl_prefixes: Literal["last", "all"] = "last"
    prior_factor: bool = False
    hidden: int = 64
    layers: int = 2
    encoder_learning_rate: float = 1e-3
    controller_learning_rate: float = 3e-4
    evaluator_learning_rate: float = 3e-3
    gradient_clip: float = 0.5
    initial_networks: int = 5
    candidates: int = 20
    candidates_adapting: int = 0
    mutations_adapting: float = 0.0
    uniform_floor: float = 0.0
    fallback: Literal["random", "mutation"] = "random"
    normalisation: str = "rank"
    clip: float = 0.2
    policy_updates: int = 4
    policy_window: int = 10
    entropy_weight: float = 0.05
    evaluator_updates: int = 10
    replay_fraction: float = 0.8
    replay_alpha: float = 0.6
    replay_beta: float = 0.4
    huber_delta: float = 1.0
    epsilon_start: float = 1.0
    epsilon_end: float = 0.1
    epsilon_start_adapting: float = 0.2
    epsilon_end_adapting: float = 0.05
    double: bool = False

    def __post_init__(self) -> None:
        """Refuse values that could only fail later.

        Raises:
            ValueError: naming the setting, its value and what is allowed.
        """
        if self.normalisation not in ("zscore", "rank"):
            raise ValueError(f"normalisation is '{self.normalisation}', allowed: zscore, rank")
        for name, allowed in (("kl_prefixes", ("last", "all")), ("fallback", ("random", "mutation"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}', allowed: {', '.join(allowed)}")
        if self.candidates_adapting < 0 or not 0 <= self.uniform_floor < 1:
            raise ValueError(
                f"candidates_adapting is {self.candidates_adapting} (at least 0) and uniform_floor "
                f"{self.uniform_floor} (in [0, 1))"
            )
        for name in ("latent", "hidden", "layers", "initial_networks", "candidates", "policy_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if not 0 <= self.mutations_adapting <= 1:
            raise ValueError(f"mutations_adapting is {self.mutations_adapting}, it must lie in [0, 1]")
        for name in ("epsilon_start", "epsilon_end", "epsilon_start_adapting", "epsilon_end_adapting"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must lie in [0, 1]")
        if not 0 < self.replay_fraction <= 1:
            raise ValueError(f"replay_fraction is {self.replay_fraction}, it must lie in (0, 1]")
