"""The weights that ship: they open safely, fit, are worth having, and are refused where they do not belong."""

import pickle

import pytest
import torch

from search.agents.catcher.agent import PRETRAINED, CATCHer
from search.agents.catcher.bayesian import BayesianCATCHer
from search.cli import main
from search.errors import CatchmarkError
from search.recipes.recipe import RECIPES, load_recipe
from search.spaces.nasbench201 import OPERATION_NAMES, NASBench201
from search.spaces.transnasbench101 import TransNASBench101Micro
from tests.search.agents.toy_spaces import Grid

RECIPE = RECIPES / "catch/pretrained.yaml"


@pytest.mark.parametrize("space", [NASBench201(), TransNASBench101Micro()], ids=lambda space: space.name)
def test_shipped_weights_are_what_a_search_starts_from(space):
    path = PRETRAINED / f"BayesianCATCHer_{space.name}.pt"
    assert path.stat().st_size < 400_000
    shipped = torch.load(path, weights_only=True)["networks"]
    agent = BayesianCATCHer(space, trials=10, init="pretrained")
    for name, value in agent.networks.state_dict().items():
        assert torch.equal(value, shipped[name][torch.arange(10) % 8]), name
    assert f"`{path.name}`" in (PRETRAINED / "README.md").read_text(), "the README says where each file comes from"


def test_they_expect_more_of_networks_with_convolutions():
    """Without any evaluation of its own, a pretrained agent prefers what trains well: 3x3 convolutions over nothing."""
    space = NASBench201()
    agent = BayesianCATCHer(space, trials=8, init="pretrained")
    good, bad = ([OPERATION_NAMES.index(name)] * 6 for name in ("nor_conv_3x3", "none"))
    archs = torch.tensor([[good, bad]]).expand(8, -1, -1)
    scores = agent._prior(archs, torch.zeros(8, agent.settings.latent), torch.zeros(8, 2))
    assert (scores[:, 0] > scores[:, 1]).all()


def test_refused_where_none_ships_or_they_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="no BayesianCATCHer for grid ships, only: BayesianCATCHer on nasbench201"):
        BayesianCATCHer(Grid(), init="pretrained")
    with pytest.raises(ValueError, match="no CATCHer for nasbench201 ships"):
        CATCHer(NASBench201(), init="pretrained")
    with pytest.raises(ValueError, match="another kind of agent than CATCHer"):
        bayesian = BayesianCATCHer(NASBench201(), settings=CATCHer(NASBench201()).settings)
        CATCHer(NASBench201()).load_weights(bayesian.weights())
    with pytest.raises(ValueError, match=r"absent\.pt' can't be read"):
        BayesianCATCHer(NASBench201(), init=str(tmp_path / "absent.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"text\.pt' is not a weights file"):
        BayesianCATCHer(NASBench201(), init=str(tmp_path / "text.pt"))


def test_a_malicious_file_is_not_executed(tmp_path):
    class Malice:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"space": Malice()}, tmp_path / "weights.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malice()))
    for name in ("weights.pt", "plain.pt"):
        (tmp_path / "executed").unlink(missing_ok=True)
        with pytest.raises(ValueError, match="is not a weights file"):
            BayesianCATCHer(NASBench201(), init=str(tmp_path / name))
        assert not (tmp_path / "executed").exists()


def test_agent_options_reach_every_agent_that_takes_them(capsys):
    experiment, resolved = load_recipe(RECIPE, {"agent.init": "pretrained"})
    assert "init: pretrained" in resolved
    shipped = torch.load(PRETRAINED / "BayesianCATCHer_nasbench201.pt", weights_only=True)["networks"]
    catch = experiment.agent("catch")
    assert all(torch.equal(value, shipped[name][:4]) for name, value in catch.networks.state_dict().items())
    with pytest.raises(CatchmarkError, match=r"--agent\.inti: no agent of the recipe takes 'inti'.*'init'"):
        load_recipe(RECIPE, {"agent.inti": "pretrained"})
    assert main(["run", str(RECIPE), "--agent.init", "pretrained", "--dry-run"]) == 0
    assert "init: pretrained" in capsys.readouterr().out
