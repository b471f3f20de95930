# Rootnote: every target sets up what it needs in .venv. `make help` lists them.
SHELL := /bin/bash
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test check audit format

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: ## Make .venv and install everything, a browser for the tests included
	@scripts/setup dev

demo: ## Run the whole main job on synthetic music and simulated listeners, ending with Table 1
	@scripts/setup all
	@$(BIN)/rootnote demo $(ARGS)

test: ## Run the whole test suite (SQLite, PostgreSQL, headless Chromium)
	@scripts/setup dev
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

check: ## Format, lint, types, layers, migrations, dependency audit, then the tests
	@scripts/setup dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/rootnote server migrate --check
	$(BIN)/python scripts/audit
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

audit: ## Look the installed packages up among known vulnerabilities (needs the network; ROOTNOTE_SKIP_AUDIT=1: not)
	@scripts/setup dev
	$(BIN)/python scripts/audit

format: ## Rewrite the code in the house's format
	@scripts/setup dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
