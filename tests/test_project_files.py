"""What the files about the project say is true of the project."""

import configparser
import re
from pathlib import Path

import yaml
from setuptools import find_namespace_packages

from search import __version__
from search.recipes.recipe import RECIPES

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_linter_before_a_commit_is_the_one_of_the_tests():
    pinned = re.search(r"^ruff==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    (ruff,) = [repo for repo in read(".pre-commit-config.yaml")["repos"] if "ruff" in repo["repo"]]
    assert ruff["rev"] == f"v{pinned[1]}"


def test_every_python_that_is_promised_is_tested():
    first, behind = (int(minor) for minor in re.findall(r"3\.(\d+)", SETUP["options"]["python_requires"]))
    tested = read(".github/workflows/test.yml")["jobs"]["pinned"]["strategy"]["matrix"]["python"]
    assert {f"3.{minor}" for minor in range(first, behind)} <= set(tested)


def test_license_and_citation_are_those_of_the_package():
    citation = read("CITATION.cff")
    assert citation["version"] == __version__ and citation["license"] == SETUP["metadata"]["license"] == "MIT"
    assert (ROOT / SETUP["metadata"]["license_files"]).read_text().startswith("MIT License")


def test_contributors_are_told_what_there_is():
    text, makefile = (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make (\w+)", text))
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    folders = set(re.findall(r"`((?:search|lightning_modules|datamodules|tests)/[\w/]*)`", text)) - {"search/"}
    assert folders and all((ROOT / folder).is_dir() for folder in folders)


def test_the_wheel_has_the_recipes_though_they_are_in_no_package():
    assert SETUP["options"]["packages"] == "find_namespace:"
    packages = find_namespace_packages(str(ROOT), include=SETUP["options.packages.find"]["include"].split())
    assert {"experiments", "datamodules", "lightning_modules", "search.agents.catcher"} <= set(packages)
    assert not [name for name in packages if name.startswith("tests")]
    patterns = re.split(r"[,\s]+", SETUP["options.package_data"]["experiments"].strip())
    packed = {path for pattern in patterns for path in RECIPES.glob(pattern)}
    assert packed >= set(RECIPES.rglob("*.yaml")) and RECIPES / "quickstart.yaml" in packed


def test_pages_are_built_with_the_versions_that_the_extra_names():
    extra = SETUP["options.extras_require"]["docs"].split()
    (install,) = re.findall(
        r"^\t\$\(VENV\)-docs/bin/python .* install (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert re.findall(r'"(.+?)"', install) == extra


def test_every_method_has_a_page_and_every_word_a_line():
    pages = {path.stem for path in (ROOT / "docs/methods").glob("*.md")}
    assert {"catch", "landmark_regularization", "spos", "gdas", "nao", "darts", "setn", "enas", "random_nas"} <= pages
    terms = re.findall(r"^(\S.*)\n: ", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert len(terms) >= 20 and terms == sorted(terms, key=str.casefold)


def test_the_path_of_a_recipe_has_ten_rooms_at_most_and_no_return():
    rooms = re.findall(r"^\| (\d+) \| `([\w/]+)` \|", (ROOT / "docs/path_of_a_recipe.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rooms] == list(range(1, len(rooms) + 1)) and 5 < len(rooms) <= 10
    assert all((ROOT / room).is_dir() for _, room in rooms) and len({room for _, room in rooms}) == len(rooms)
