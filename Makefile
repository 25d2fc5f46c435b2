VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?=
# A worker a core, one thread each; a file stays with one worker, so its fixtures are made once.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast check format hooks clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Create the virtual environment and install everything into it

# Repeated only when one of these files is newer than the stamp.
$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}: make install PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

demo: install ## Train the miniature on this machine, no download, and print its figures
	$(BIN)/python -m align.train

test: install ## Run all tests
	$(PYTEST) $(PYTEST_ARGS)

test-fast: install ## Run the tests that are not marked slow
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

check: install ## Lint, formatting and types, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Sort imports, fix what can be fixed, format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: install ## Run the checks before each commit
	$(BIN)/pre-commit install

clean: ## Remove caches and build artefacts (keeps the virtual environment and runs/)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
