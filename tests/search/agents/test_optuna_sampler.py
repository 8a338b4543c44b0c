import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from search.agents.optuna_sampler import OptunaSampler
from search.randomness import TrialRandom

from .toy_spaces import Grid, Staircase, integer_reward


def search(agent, evaluations, n=1):
    asked = []
    for _ in range(evaluations // n):
        archs = agent.ask(n)
        agent.tell(archs, integer_reward(agent.space, archs))
        asked.append(archs)
    return torch.cat(asked, dim=1)


def test_suggests_what_a_plain_study_with_the_same_history_does():
    space = Grid(4, 3)
    agent = OptunaSampler(space, seed=8)
    archs = space.sample(TrialRandom(1), 15)
    rewards = integer_reward(space, archs)
    agent.tell(archs, rewards)
    suggested = agent.ask()[0, 0].tolist()

    seed = TrialRandom(8).integers(2**31).item()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    parameters = {decision.name: CategoricalDistribution([0, 1, 2]) for decision in space.decisions}
    for arch, reward in zip(archs[0].tolist(), rewards[0].tolist(), strict=True):
        choices = dict(zip(parameters, arch, strict=True))
        study.add_trial(create_trial(params=choices, distributions=parameters, value=reward))
    trial = study.ask()
    assert [trial.suggest_categorical(name, [0, 1, 2]) for name in parameters] == suggested


def test_a_batch_does_not_wait_to_be_told():
    """TPE spreads a batch out: after the random opening, eight suggestions at once are not one architecture."""
    agent = OptunaSampler(Grid(), trials=3)
    search(agent, 16, n=4)
    for batch in agent.space.code(agent.ask(8)).tolist():
        assert len(set(batch)) >= 6


def test_what_was_asked_and_not_told_is_running():
    """The second of two asks without a tell knows the first, as a batch of two does; so does a resumed agent."""
    agent = OptunaSampler(Grid())
    search(agent, 12)
    agent.ask(2)
    archs = agent.ask(1)
    assert [len(running) for running in agent.state_dict()["running"]] == [3]
    agent.tell(archs, torch.ones(1, 1))
    state = agent.state_dict()
    assert [len(running) for running in state["running"]] == [2]
    assert state["told"][0][-1][0] == archs[0, 0].tolist()


@pytest.mark.parametrize("sampler", ["RandomSampler", "NSGAIISampler", "BruteForceSampler"])
def test_other_samplers_resume_too(sampler):
    options = {"population_size": 4} if sampler == "NSGAIISampler" else {}
    whole = search(OptunaSampler(Staircase(), 2, 5, sampler, options), 24, n=3)
    agent = OptunaSampler(Staircase(), 2, 5, sampler, options)
    before = search(agent, 15, n=3)
    resumed = OptunaSampler(Staircase(), 2, 99, sampler, options)
    resumed.load_state_dict(agent.state_dict())
    assert torch.equal(torch.cat([before, search(resumed, 9, n=3)], dim=1), whole)


def test_a_genetic_sampler_remembers_its_generations():
    """NSGA-II keeps them in notes on its trials; without those it would stay in generation 0, at random, for ever."""
    agent = OptunaSampler(Grid(), sampler="NSGAIISampler", options={"population_size": 5})
    search(agent, 20)
    told = agent.state_dict()["told"][0]
    assert [notes["NSGAIISampler:generation"] for _, _, notes in told] == [k // 5 for k in range(20)]
    assert "NSGAIISampler:parent:3" in agent.state_dict()["study_notes"][0]


def test_brute_force_visits_a_masked_space_once():
    space = Staircase()
    everything = {arch for arch in space.enumerate() if arch[0] == 3}
    agent = OptunaSampler(space, sampler="BruteForceSampler")
    others = torch.tensor([[arch for arch in space.enumerate() if arch[0] != 3]])
    agent.tell(others, integer_reward(space, others))
    assert {tuple(arch) for arch in search(agent, 20)[0].tolist()} <= everything


def test_parameter_names_carry_the_valid_choices():
    agent = OptunaSampler(Staircase())
    names = {agent._parameter((3,) * t)[0] for t in range(2)} | {agent._parameter((1,))[0]}
    assert names == {"step 0", "step 1 of 2,3", "step 1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"sampler": "TPESampelr"},
            r"unknown sampler 'TPESampelr', allowed: .*GPSampler.*; did you mean 'TPESampler'\?",
        ),
        ({"sampler": "CmaEsSampler"}, "'CmaEsSampler' draws categorical decisions at random; use one of"),
        ({"options": {"n_startup_trial": 3}}, r"unknown option of TPESampler 'n_startup_trial', .*'n_startup_trials'"),
        ({"options": {"seed": 3}}, "unknown option of TPESampler 'seed'"),
        ({"sampler": "BaseSampler"}, "unknown sampler 'BaseSampler'"),
    ],
)
def test_refuses_with_the_nearest_spelling(arguments, message):
    with pytest.raises(ValueError, match=message):
        OptunaSampler(Grid(), **arguments)


def test_is_silent_and_leaves_the_verbosity_alone(capfd, recwarn):
    before = optuna.logging.get_verbosity()
    search(OptunaSampler(Grid(), sampler="BruteForceSampler"), 2)
    assert capfd.readouterr() == ("", "")
    assert len(recwarn) == 0
    assert optuna.logging.get_verbosity() == before
