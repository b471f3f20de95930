# Rootnote: every target sets up what it needs in .venv. `make help` lists them.
SHELL := /bin/bash
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test quick soak check docs audit format
PYTEST = ROOTNOTE_TEST_TARGET="make $@" $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: ## Make .venv and install everything, including a browser for the tests
	@scripts/setup dev

demo: ## Run a complete study on synthetic music with simulated listeners, ending with Table 1
	@scripts/setup all
	@$(BIN)/rootnote demo $(ARGS)

test: ## Run the test suite with small counts (SQLite, PostgreSQL, headless Chromium)
	@scripts/setup dev
	@$(PYTEST) $(ARGS)

quick: ## Run the fast tests only (no browser, no PostgreSQL, no neural networks)
	@scripts/setup dev
	@$(PYTEST) --quick $(ARGS)

soak: ## Run the test suite with full counts and both databases; takes up to 90 minutes
	@scripts/setup soak
	@$(PYTEST) --soak $(ARGS)

check: ## Check format, lint, types, layers, migrations, docs and dependencies, then run the tests
	@scripts/setup dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/biome lint --error-on-warnings
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/rootnote server migrate --check
	@$(MAKE) docs
	$(BIN)/python scripts/audit
	@$(PYTEST) $(ARGS)

docs: ## Build the documentation into build/site; warnings are errors
	@scripts/setup dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs: open build/site/index.html"

audit: ## Look up known vulnerabilities of the installed packages (needs the network; ROOTNOTE_SKIP_AUDIT=1 skips it)
	@scripts/setup dev
	$(BIN)/python scripts/audit

format: ## Format the code
	@scripts/setup dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
