"""A task of several fidelities with a known answer, and searches on it at equal cost."""

import torch

from search.evaluation import Evaluation

from .toy_spaces import integer_reward


def scores_at(space, archs, shares):
    """What architectures score after shares of their training: the truth, and another function that fades away."""
    return integer_reward(space, archs) + (1 - torch.tensor(shares)) * integer_reward(space, archs, seed=1)


def share_of(agent, proposal):
    """Of a full evaluation, by the agent's own levels."""
    return proposal.fidelity.get(agent.fidelity, agent.levels[-1]) / agent.levels[-1]


def step(agent, spent):
    """One proposal a trial is evaluated and told; the proposals, scores, and the costs added to what is spent."""
    proposals = agent.propose(1)
    for trial, (proposal,) in enumerate(proposals):
        share = share_of(agent, proposal)
        # Going on costs what was missing: one level more.
        done = max((level for level in agent.levels if level < share * agent.levels[-1]), default=0.0)
        spent[trial] += share - (done / agent.levels[-1] if proposal.parent is not None else 0.0)
    archs = torch.tensor([row[0].architecture for row in proposals])
    scores = scores_at(agent.space, archs, [share_of(agent, row[0]) for row in proposals])
    agent.observe(proposals, [[Evaluation(score)] for score in scores.tolist()], scores[:, None])
    return [row[0] for row in proposals], scores.tolist()


def best_at_cost(agent, evaluations):
    """The best full evaluation of each trial, for the cost of so many of them: float64 ``[trials]``."""
    agent.begin_task(100 * evaluations, adapting=True)
    spent, best = [0.0] * agent.trials, torch.full((agent.trials,), -torch.inf, dtype=torch.float64)
    while min(spent) < evaluations:
        for trial, (proposal, score) in enumerate(zip(*step(agent, spent), strict=True)):
            if spent[trial] <= evaluations and not proposal.fidelity:
                best[trial] = max(float(best[trial]), score)
    return best
