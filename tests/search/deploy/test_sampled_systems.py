"""What MnasNet's, RENAS' and IRLAS' searches find is trained and exported like anything else."""

import json

import pytest

from search.cli import main
from search.deploy import export

RECIPE = """
space: {space}
targets:
  digits:
    class_path: TrainedTask
    init_args:
      data: {{class_path: DigitsDataModule, init_args: {{resolution: 8, batch_size: 256}}}}
      epochs: 1
      build: {build}
      trainer: {{limit_train_batches: 1, accelerator: cpu}}
      threads: 1
agents: {{searcher: {agent}}}
budget: 1
"""
SYSTEMS = {
    "mnasnet": ("{class_path: MnasNet, init_args: {blocks: 5}}", "{skeleton: cifar, width_multiplier: 0.1}",
                "RecurrentController"),
    "renas": ("RENAS", "{channels: 4, cells: 1}", "ReinforcedEvolution"),
    "irlas": ("NASBench201", "{channels: 4, cells: 1}", "Reinforce"),
}  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_found_is_trained_and_exported(tmp_path, monkeypatch, capsys, system):
    monkeypatch.chdir(tmp_path)
    space, build, agent = SYSTEMS[system]
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(space=space, build=build, agent=agent))
    assert main(["run", "recipe.yaml", "--quiet"]) == 0
    assert main(["train", "runs/recipe/latest", "--quiet", "--epochs", "1"]) == 0
    folder = tmp_path / "runs" / "recipe" / "latest" / "trained" / "digits"
    exported = export.export_network(folder, form="torch", batch=1)
    assert exported.path.suffix == ".pt2" and exported.difference <= 1e-4
    found = json.loads((tmp_path / "runs/recipe/latest/summary.json").read_text())
    best = found["targets"]["digits"]["agents"]["searcher"]["best"]["architecture"]
    assert json.loads((folder / "network.json").read_text())["architecture"] == best
