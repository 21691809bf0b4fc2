# Every target sets itself up: a .venv beside this file, installed once and reused.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-fast bench determinism publish report lint format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,expert]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/nhzoo demo bc-lstm-483k --protocol smoke-v1 --out build/demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q

test-fast: $(STAMP)
	$(BIN)/pytest -q -m "not slow"

bench: $(STAMP)
	$(BIN)/pytest -q tests/benchmarks/bench_*.py

determinism: $(STAMP)
	$(BIN)/python -m tests.determinism

# Writes training/REPORT.md and its figures anew. With the paper's measured points, which have no
# licence and are not here, the figure beside them as well: PUBLISHED=their folder.
report: $(STAMP)
	$(BIN)/python training/report.py $(if $(PUBLISHED),--published $(PUBLISHED))

# Says what would change on the hub; YES=1 does it.
publish: $(STAMP)
	$(BIN)/nhzoo publish . $(if $(YES),--yes)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
