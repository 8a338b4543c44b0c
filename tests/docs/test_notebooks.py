"""The notebooks run from top to bottom in an empty folder, and are kept as they were written: without any output."""

import json
import os
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
CELLS = """
import json, sys
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        print(source := "".join(cell["source"]))
        exec(compile(source, "cell " + cell["id"], "exec"), globals())
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_an_empty_folder(notebook, tmp_path, server):
    environment = {**os.environ, "WANDB_MODE": "disabled", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = server.run(CELLS, [notebook], folder=tmp_path, environment=environment)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert list((tmp_path / "runs").rglob("report.html"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_is_linked(notebook):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert content["cells"][0]["cell_type"] == "markdown" and content["nbformat"] == 4
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    assert f"(notebooks/{notebook.name})" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 3
