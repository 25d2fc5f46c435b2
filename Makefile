VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?=
# One worker per core with one thread each. Workers start with whole files and take over single
# tests from each other at the end, so few module fixtures are built twice.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal
CHROMIUM := chromium chromium-browser google-chrome

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help install browser demo test test-fast check format docs wheel hooks clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## Create the virtual environment and install everything into it

# Runs again only when one of these files is newer than the stamp.
$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}: make install PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

browser: install ## Install Chromium for the browser tests (Debian, Ubuntu)
	@for name in $(CHROMIUM); do \
		if command -v $$name; then exit 0; fi; \
	done; \
	if command -v apt-get >/dev/null; then \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq chromium; \
	else \
		echo "Chromium is not installed and there is no apt-get: install Chromium or Google Chrome," >&2; \
		echo "or run $(BIN)/python -m playwright install chromium" >&2; \
		exit 1; \
	fi

demo: install ## Train the demo encoder on this machine (no download) and print its metrics
	$(BIN)/python -m align.train

test: install ## Run all tests
	$(PYTEST) $(PYTEST_ARGS)

test-fast: install ## Run the tests that are not marked slow
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

check: install ## Check lint, formatting, types and workflow files without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[bf]*.yml

format: install ## Sort imports, apply automatic fixes, format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

wheel: install ## Build the source archive and the wheel into dist/
	$(BIN)/python -m build

hooks: install ## Run the checks before each commit
	$(BIN)/pre-commit install

clean: ## Remove caches and build artifacts (keeps the virtual environment and runs/)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
