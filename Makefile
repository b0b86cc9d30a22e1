# Everything lands in .venv (and .venv-parity) beside this file; nothing else on the machine is touched,
# except that python3-venv is installed where it is missing and we are root.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PARITY := .venv-parity/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# without a GPU: make TORCH_INDEX=https://download.pytorch.org/whl/cpu …, a tenth of the download
TORCH_INDEX ?=
TORCH = $(if $(TORCH_INDEX),$(BIN)/python -m pip install -q -c constraints.txt --index-url $(TORCH_INDEX) torch,@true)
# the tests of one room at a time: make test ARGS="tests/test_boxes.py -k take"
ARGS ?=
INSTALL := DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends
CHROMIUM := $(INSTALL) chromium fonts-liberation
# what Open3D asks of the system (detmetrics_viz.opening.PACKAGES), and a virtual screen with hands
VIEWER := libgl1 libegl1 libgl1-mesa-dri libusb-1.0-0 libx11-6 libgomp1 libudev1 libidn2-0
SCREEN := $(INSTALL) $(VIEWER) xvfb xdotool

.PHONY: help demo test browser screen lint proto docs parity goldens soak bench clean

help:
	@echo "make demo     from nothing to a scored, seen and served detector, every command shown"
	@echo "make test     all tests of the gate"
	@echo "make docs     the documentation, as pages to read in build/docs/index.html"
	@echo "make parity   the official evaluators as oracles, on hundreds of data sets"
	@echo "make soak     the long tests"
	@echo "make bench    the benchmarks beside the official evaluator, at full size"

demo: .venv/all screen
	$(BIN)/detmetrics demo demo

test: .venv/dev lint browser screen
	$(BIN)/python -m pytest -m "not parity and not soak" $(ARGS)

# Debian's Chromium for the tests that open a report: installed where we are root, else those tests are skipped
browser:
	@command -v chromium >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { $(CHROMIUM) || { timeout 120 apt-get update -qq && $(CHROMIUM); }; } >/dev/null 2>&1; } \
	|| echo "no chromium, so the tests that open a report are skipped; to run them: sudo apt-get install chromium fonts-liberation"

# the same for the viewer, and a virtual screen for the test of its window
screen:
	@{ command -v Xvfb && command -v xdotool && dpkg -s $(VIEWER); } >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { $(SCREEN) || { timeout 120 apt-get update -qq && $(SCREEN); }; } >/dev/null 2>&1; } \
	|| echo "tests of the viewer are skipped or fail; to run them: sudo apt-get install $(VIEWER) xvfb xdotool"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proto: .venv/dev
	$(BIN)/python proto/generate.py

docs: .venv/docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

parity: .venv-parity/dev
	$(PARITY)/python -m pytest -m parity $(ARGS)
	$(PARITY)/python -m pytest -m "not parity and not soak" --ignore=tests/test_house.py $(ARGS)

goldens: .venv-parity/dev
	$(PARITY)/python tests/golden/make_goldens.py

soak: .venv/fuzz
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

bench: .venv/dev .venv-parity/dev
	$(BIN)/python -m pytest tests/bench --benchmark-enable -q
	$(BIN)/python tests/bench/whole.py $(ARGS)
	$(BIN)/python tests/bench/questions.py

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "detmetrics needs Python 3.11 or newer: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv .venv || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv .venv; } || { rm -rf .venv; echo "install python3-venv first: sudo apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt --upgrade pip
	@touch $@

.venv/core: .venv/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

# everything that a user may want; open3d-cpu is open3d in a quarter of the size
.venv/all: .venv/core
	$(TORCH)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[parquet,report,server,detector]' --group viz
	@touch $@

.venv/dev: .venv/core
	$(TORCH)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[parquet,report,server,detector]' --group dev
	@touch $@

.venv/docs: .venv/core
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[parquet,report,server]' --group docs
	@touch $@

.venv/fuzz: .venv/dev
	$(BIN)/python -m pip install -q -c constraints.txt --group fuzz
	@touch $@

# The line before the last names what the evaluation of av2 imports; its other wishes are gigabytes.
.venv-parity/dev: pyproject.toml tests/parity/constraints.txt
	@[ -x $(PARITY)/python ] || $(PYTHON) -m venv .venv-parity
	$(PARITY)/python -m pip install -q -c tests/parity/constraints.txt --upgrade pip
	$(PARITY)/python -m pip install -q -c tests/parity/constraints.txt -e '.[parquet,report]' --group test \
	  nuscenes-devkit truckscenes-devkit pandas polars joblib universal-pathlib
	$(PARITY)/python -m pip install -q -c tests/parity/constraints.txt --no-deps av2
	@touch $@

clean:
	rm -rf .venv .venv-parity demo build docs/_made .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find detmetrics tests -name __pycache__ -prune -exec rm -rf {} +
