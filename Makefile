# Two commands on a fresh machine with Python >= 3.11: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
STAMP = $(shell date +%Y-%m-%d_%H-%M-%S)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-lowest lint format wheel-check bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

install: .venv/installed  ## .venv with the package

demo: .venv/installed  ## train on built-in data (CPU, minutes), test, draw overlays
	@run=runs/demo/$(STAMP) && \
	$(BIN)/python -m anatosegnet.train experiment=demo run_dir=$$run && \
	$(BIN)/python -m anatosegnet.evaluate run=$$run && \
	echo && echo "overlays  $$run/evaluation/phantom/overlays" && \
	echo "report    $$run/evaluation/phantom/report.html" && \
	echo "summary   $$run/summary.json" && \
	$(BIN)/python -c "import json, sys; print(f\"test IoU  {json.load(open(sys.argv[1]))['test/iou']:.3f}\")" $$run/summary.json

test: .venv/installed-dev lint wheel-check  ## lint, types, wheel, all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-fast: .venv/installed-dev  ## the tests that take less than a second each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow' --numprocesses auto

# --resolution lowest-direct is uv's; pip has no such option
.venv-lowest/installed: pyproject.toml
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --editable '.[dev]'
	touch $@

test-lowest: .venv-lowest/installed  ## the fast tests, with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/uv pip list --quiet --python .venv-lowest/bin/python
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -m 'not slow' --numprocesses auto

lint: .venv/installed-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev  ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-check: .venv/installed-dev  ## a wheel, installed elsewhere, composes its configs
	scripts/check_wheel.sh $(BIN)/python

bench: .venv/installed  ## speed of attention and training (minutes; wants an idle machine)
	$(BIN)/python scripts/bench_attention.py
	$(BIN)/python scripts/bench_training.py

clean:  ## remove .venv and what tools leave behind
	rm -rf .venv .venv-lowest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
