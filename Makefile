PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= experiments/quickstart.yaml experiments/quickstart_table.yaml

.PHONY: quickstart test tests lint types install docs clean

# One thread: matrices and networks are small, and two threads that share their cores with others mostly wait.
quickstart: install ## install, then meta-train a CATCHer, adapt it, and write a report: trained, and on a table
	set -e; for recipe in $(RECIPE); do OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/catchmark run $$recipe; done

# Each with one thread, for tests are many and small. One process more than two cores: now and then one waits, for a
# disk, for what it has started, or for a limit of time. PYTEST passes on more, for instance PYTEST=--cov.
# Types are looked at beside the tests: that takes half a minute of one core.
test: lint ## lint, types and every test
	$(MAKE) --no-print-directory --jobs 2 types tests

tests: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

install: $(VENV)/installed

# The stamp makes a second `make` start at once; a changed requirement installs again.
$(VENV)/installed: requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	touch $@

# Of their own, so that a page can be written without torch.
docs: $(VENV)-docs/installed ## build the pages of docs/ into build/docs
	$(VENV)-docs/bin/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs
	@echo "pages: build/docs/index.html"

$(VENV)-docs/installed: setup.cfg
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --disable-pip-version-check --progress-bar off "sphinx>=8.1" "myst-parser>=4.0" "furo>=2024.8"
	touch $@

clean: ## remove what can be made again; runs/ stays
	rm -rf $(VENV) $(VENV)-docs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
