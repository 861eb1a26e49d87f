# What a contributor runs. Every verb that needs an environment makes .venv first.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help setup train test test-env test-thorough test-all test-slow check format lint type docs build bench clean force

PYTHON ?=
ARGS ?=
JOBS ?= 2
export PYTHON
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
# Keep compiled tests: otherwise every test process compiles all of them anew, about 10 seconds.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 5
QUICK := not thorough and not slow and not gpu and not real

help: ## show this list
	@echo 'Start with "make train" (learn to debate, a few minutes) or "make test".'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo 'Options: ARGS="..." for train, bench and the tests, JOBS=2 test processes, PYTHON=python3.12 for setup.'

# The mark is as good as absent when .venv was since moved, broken or meant for another Python.
$(READY): pyproject.toml constraints.txt scripts/setup.sh $(if $(shell scripts/setup.sh --check || echo stale),force)
	@scripts/setup.sh

setup: $(READY) ## make .venv with everything in it (again, if it is broken)

train: $(READY) ## train two agents with the built-in task; ARGS="--help" lists the options
	$(BIN)/maporl train $(ARGS)

test: $(READY) ## the quick tests: about 5 minutes on 2 free cores
	$(PYTEST) -m "$(QUICK)" $(ARGS)

test-env: $(READY) ## quick tests of the environment alone
	$(PYTEST) -m "$(QUICK)" tests/env $(ARGS)

test-thorough: $(READY) ## what "make test" leaves out and a change must pass too, some minutes
	$(PYTEST) -m "thorough and not slow and not gpu" --timeout 600 $(ARGS)

test-all: test test-thorough ## both of these, as the checks of a change run them

test-slow: $(READY) ## by hand: tests of minutes each, and those for an accelerator
	$(PYTEST) -m "slow or gpu" --timeout 1800 $(ARGS)

check: lint type test ## what a change must pass

format: $(READY) ## put the code in order
	$(BIN)/python -m ruff check --fix-only --quiet .
	$(BIN)/python -m ruff format .

lint: $(READY) ## style, formatting and import contracts
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports

type: $(READY) ## static types
	$(BIN)/python -m mypy

docs: $(READY) ## the documentation and the API reference as a site (Python 3.11 or later)
	$(BIN)/python -m sphinx -W --keep-going --quiet -j $(JOBS) docs build/site
	@echo 'The site is in build/site/index.html.'

build: $(READY) ## source and wheel distributions, into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

bench: $(READY) ## ratios of the engine against plain references, minutes; fails on a loss of 15 %
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py $(ARGS)

clean: ## remove build output and caches; .venv and runs stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
