"""The plan of the house: which rooms there are, and that imports between them point one way.

Each rule is a function of a folder, so that it can be seen failing on a small house with the fault built in.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "lightning_modules", "datamodules")
TOP = 5
"""Files that may lie at the top of ``search/``."""
FLOORS = (
    ("errors", "randomness", "evaluation", "statistics"),
    ("training",),
    ("spaces", "tables", "attributes", "rewards", "agents", "tasks"),
    ("runs", "executors", "loop", "recipes", "results", "studies", "distributed"),
    ("reports", "listeners"),
    ("contracts", "deploy", "commands", "cli"),
)
"""Rooms of ``search/`` from the ground up: what counts, trains, decides, runs, shows and hands out."""
DOORS = {"lightning_modules": (), "datamodules": ("lightning_modules",), "search": ("lightning_modules", "datamodules")}
"""Which other packages each may import."""


def modules(root):
    """Every module by name, with its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root, late=True):
    """By module, what it imports of ours; ``late`` with what it imports inside of functions too."""
    known = modules(root)
    graph = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        only_typed = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        wanted = set()
        for node in ast.walk(tree):
            if id(node) in only_typed or (not late and getattr(node, "col_offset", 0)):
                continue
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    wanted |= {inner if inner in known else node.module} & known.keys()
            elif isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names} & known.keys()
        graph[name] = wanted - {name}
    return graph


def circles(graph):
    """Groups of modules that import each other, directly or not (Tarjan 1972)."""
    number, lowest, waiting, found = {}, {}, [], []

    def visit(node):
        number[node] = lowest[node] = len(number)
        waiting.append(node)
        for other in sorted(graph[node]):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in waiting:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            at = waiting.index(node)
            if len(waiting) - at > 1:
                found.append(sorted(waiting[at:]))
            del waiting[at:]

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def wrong_doors(graph):
    """Imports from one package into another that may not know it."""
    found = []
    for name, others in graph.items():
        package = name.partition(".")[0]
        for other in sorted(others):
            there = other.partition(".")[0]
            if there != package and there not in DOORS[package]:
                found.append(f"{name} imports {other}")
    return found


def steps_down(graph):
    """Imports of ``search/`` that lead up the stairs, and rooms that stand on no floor."""
    floors = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for name, others in graph.items():
        places = [each.split(".")[1] for each in (name, *sorted(others)) if each.startswith("search.")]
        if not name.startswith("search."):
            continue
        found += [f"{each} stands on no floor" for each in places if each not in floors]
        known = [each for each in sorted(others) if each.startswith("search.")]
        here = floors.get(places[0], 0)
        found += [f"{name} imports {each}" for each in known if floors.get(each.split(".")[1], 0) > here]
    return found


def files_at_the_top(root):
    """The modules that lie in ``search/`` itself."""
    return sorted(path.name for path in (root / "search").glob("*.py"))


def loaded_with(root, module):
    """What importing a module loads, by the names of packages."""
    code = f"import sys, {module}; print(' '.join(sorted({{each.partition('.')[0] for each in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture
def house(tmp_path):
    """A small house, in order."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "search" / "loop.py").write_text("from search import walls\n")
    (tmp_path / "search" / "walls.py").write_text("")
    return tmp_path


@pytest.fixture(scope="module")
def ours():
    """What imports what, in the house itself."""
    return imports(ROOT)


def test_no_module_imports_itself_through_others(ours):
    assert circles(ours) == []


@pytest.mark.parametrize(
    "text", ["from search import loop", "import search.loop", "def late():\n    import search.loop"]
)
def test_a_circle_is_noticed(house, text):
    assert circles(imports(house)) == []
    (house / "search" / "walls.py").write_text(text + "\n")
    assert circles(imports(house)) == [["search.loop", "search.walls"]]


def test_packages_know_only_those_below_them(ours):
    assert wrong_doors(ours) == []


def test_a_wrong_door_is_noticed(house):
    assert wrong_doors(imports(house)) == []
    (house / "lightning_modules" / "__init__.py").write_text("def late():\n    from search.walls import paint\n")
    assert wrong_doors(imports(house)) == ["lightning_modules imports search.walls"]


def test_imports_lead_down(ours):
    assert steps_down(ours) == []


def test_a_step_up_is_noticed(house):
    for room, text in {"tasks": "", "studies": "from search.tasks import hall\n"}.items():
        (house / "search" / room).mkdir()
        (house / "search" / room / "__init__.py").write_text("")
        (house / "search" / room / "hall.py").write_text(text)
    (house / "search" / "loop.py").write_text("")
    (house / "search" / "walls.py").unlink()
    assert steps_down(imports(house)) == []
    (house / "search" / "tasks" / "hall.py").write_text("def late():\n    from search.studies import hall\n")
    assert steps_down(imports(house)) == ["search.tasks.hall imports search.studies.hall"]
    (house / "search" / "cellar.py").write_text("")
    assert "cellar stands on no floor" in steps_down(imports(house))


def test_few_files_lie_at_the_top():
    assert len(files_at_the_top(ROOT)) <= TOP, files_at_the_top(ROOT)


def test_a_file_too_many_is_noticed(house):
    for name in "abc":
        (house / "search" / f"{name}.py").write_text("")
    assert len(files_at_the_top(house)) > TOP


HEAVY = {"torch", "pytorch_lightning", "mmdet", "mmseg", "wandb", "ray"}


def test_importing_the_application_loads_nothing_heavy():
    assert not loaded_with(ROOT, "search.cli") & HEAVY


def test_something_heavy_is_noticed(house):
    (house / "search" / "walls.py").write_text("import torch\n")
    (house / "torch.py").write_text("")  # so called, but light
    assert loaded_with(house, "search.loop") & HEAVY == {"torch"}
