# Every target sets itself up: a .venv beside this file, installed once and reused.
# PYTHON: the first of these that is 3.11, 3.12 or 3.13 and can make a .venv.
FITS := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
first = $(shell for name in $(1); do $$name -c '$(FITS)' 2>/dev/null && echo $$name && break; done)
# Python 3.x by its usual name, or from pyenv.
named = $(call first,python$(1) $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python$(1)))
PYTHON ?= $(call first,python3 python3.13 python3.12 python3.11)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := constraints.txt
# Each of these processes computes in one thread.
JOBS ?= 2
# Else each of the many processes of a test run compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/pytest -q -n $(JOBS) --dist worksteal

.PHONY: setup demo scaling-demo test test-fast test-matrix test-lowest bench gpu-bundle \
	determinism publish report lint format clean

setup: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(or $(PYTHON),false) -c '$(FITS)' 2>/dev/null || { echo >&2 "make: \
	$(if $(PYTHON),$(PYTHON) is not,nothing here is) Python 3.11, 3.12 or 3.13 with venv; \
	install python3 and python3-venv, or name another: make $(or $(MAKECMDGOALS),setup) \
	PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev,expert]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/nhzoo demo bc-lstm-483k --protocol monk-lite-v1 --episodes 6 --watch 60 --out build/demo

# Plan, sweep, fit, forecast, train, grade, and a page, in minutes on two cores.
scaling-demo: $(STAMP)
	$(BIN)/python training/scaling_demo.py --out build/scaling-demo --jobs $(JOBS)

test: lint
	$(PYTEST)

test-fast: $(STAMP)
	$(PYTEST) -m "not slow and not browser"

# The fast part on each Python, in a .venv of each, which is kept: .venv-3.12 and so on.
PYTHONS ?= 3.11 3.12 3.13
test-matrix: $(PYTHONS:%=test-%)

test-3.%:
	$(MAKE) test-fast VENV=.venv-3.$* PYTHON=$(or $(call named,3.$*),python3.$*)

# The fast part with the lowest versions that pyproject.toml declares, on the lowest Python.
test-lowest:
	$(MAKE) test-fast VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt \
		PYTHON=$(or $(call named,3.11),python3.11)

bench: $(STAMP)
	$(BIN)/pytest -q --timeout 0 -o faulthandler_timeout=0 tests/benchmarks/bench_*.py

# For training/gpu_check.py: what a Python GPU_PYTHON that has torch lacks, in the versions of .venv.
GPU_PYTHON ?= 3.12
GPU_PLATFORMS := $(foreach n,28 27 17 12 5,--platform manylinux_2_$(n)_x86_64)
gpu-bundle: $(STAMP)
	rm -rf build/gpu-site
	mkdir -p build .gpu
	$(BIN)/pip freeze --exclude-editable > build/gpu-versions.txt
	$(BIN)/pip install --quiet --no-deps --no-compile --only-binary=:all: --implementation cp \
		--python-version $(GPU_PYTHON) $(GPU_PLATFORMS) --constraint build/gpu-versions.txt \
		--requirement training/gpu_site.txt --target build/gpu-site
	rm -rf build/gpu-site/zstandard/_cffi* build/gpu-site/bin  # of PyPy; of this machine
	tar -C build/gpu-site -cJf .gpu/site.tar.xz .
	ls -l .gpu/site.tar.xz

determinism: $(STAMP)
	$(BIN)/python -m tests.helpers.determinism

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
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* .gpu build dist .mypy_cache .ruff_cache .pytest_cache
