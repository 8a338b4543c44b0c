"""The page about data of one's own: its recipe is one."""

import re
from pathlib import Path

from search.evaluation import Proposal
from search.recipes.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"


def test_the_recipe_for_a_table_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    Path("price.yaml").write_text(recipe)
    rows = [f"{k},{k % 7},{'north' if k % 2 else 'south'},{100 + 3 * (k % 7)}" for k in range(60)]
    Path("houses.csv").write_text("\n".join(["id,rooms,side,price", *rows]))
    study, _ = load_recipe("price.yaml", {"targets.price.epochs": "2"})
    task = study.targets["price"]
    assert task.data.features == ["rooms", "side is north", "side is south"]
    evaluation = task.evaluate_one(Proposal(study.space.draw(0), seed=0))
    assert evaluation.status == "ok" and {"val_mae", "val_rmse"} <= set(evaluation.metrics)
