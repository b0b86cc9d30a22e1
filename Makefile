# Everything lands in .venv (and .venv-parity) beside this file; nothing else on the machine is touched, except that
# packages of Debian are installed where they are missing and we are root, or may be through sudo without a password.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PARITY := .venv-parity/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# without a GPU: make TORCH_INDEX=https://download.pytorch.org/whl/cpu …, a tenth of the download
TORCH_INDEX ?=
# the tests of one room at a time: make test ARGS="tests/test_boxes.py -k take"
ARGS ?=
INSTALL := env DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends
# what Open3D asks of the system (detmetrics_viz.opening.PACKAGES)
VIEWER := libgl1 libegl1 libgl1-mesa-dri libusb-1.0-0 libx11-6 libgomp1 libudev1 libidn2-0
# and a virtual screen with hands, to test its window
SCREEN := $(VIEWER) xvfb xdotool
# a browser, its letters, and what the program that drives it asks of the system
CHROMIUM := chromium fonts-liberation libatomic1

# install packages of Debian, silently; false where we may not
define apt
{ as_root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo -n "$$@"; fi; }; command -v apt-get && as_root true \
&& { as_root $(INSTALL) $(1) || { as_root timeout 120 apt-get update -qq && as_root $(INSTALL) $(1); }; }; } >/dev/null 2>&1
endef

# what an installation takes with torch's CPU wheels, MB; with those for CUDA it is several times as much
ROOM := 3000
# say what to do where an installation has stopped
define stopped
{ free=$$(df -Pm . "$${TMPDIR:-/tmp}" | awk 'NR > 1 && (least == "" || $$4 < least) {least = $$4} END {print least}'); \
if [ "$$free" -lt $(ROOM) ]; then echo "error: the disk is too full: $$free MB are free here or in $${TMPDIR:-/tmp}, and an installation needs $(ROOM) MB or more; make room, or set TMPDIR to a folder with room, and run make again"; \
else echo "error: the installation stopped; what pip said stands above (is there a network?). Run make again: it goes on where it stopped"; fi >&2; exit 1; }
endef
PIP = $(BIN)/python -m pip install -q -c constraints.txt
TORCH = $(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch || $(stopped),true)

# make an environment, one make at a time: who comes second waits, and then finds it made
define made
@[ -e .make.lock ] || touch .make.lock 2>/dev/null || { echo "error: everything is installed in this folder, and you may not write here: copy it to where you may, and run make there" >&2; exit 1; }; \
command -v flock >/dev/null || exec $(MAKE) -s --no-print-directory $(1); \
flock -n .make.lock true || echo "another make is installing here: waiting until it is done"; \
flock .make.lock $(MAKE) -s --no-print-directory $(1)
endef

.PHONY: help demo test browser screen viewer lint proto docs parity goldens soak bench clean

help:
	@echo "make demo     from nothing to a scored, seen and served detector, every command shown"
	@echo "make test     all tests of the gate"
	@echo "make docs     the documentation, as pages to read in build/docs/index.html"
	@echo "make parity   the official evaluators as oracles, on hundreds of data sets"
	@echo "make soak     the long tests"
	@echo "make bench    the benchmarks beside the official evaluator, at full size"

demo: viewer
	$(call made,.venv/all)
	$(BIN)/detmetrics demo demo

test: lint browser screen
	$(BIN)/python -m pytest -m "not parity and not soak" $(ARGS)

# Debian's Chromium for the tests that open a report: installed where we may, else those tests are skipped
browser:
	@{ command -v chromium && { ! command -v dpkg || dpkg -s $(CHROMIUM); }; } >/dev/null 2>&1 || $(call apt,$(CHROMIUM)) \
	|| echo "tests that open a report are skipped; to run them: sudo apt-get install $(CHROMIUM)"

# the same for the viewer, and a virtual screen for the test of its window
screen:
	@{ command -v Xvfb && command -v xdotool && dpkg -s $(VIEWER); } >/dev/null 2>&1 || $(call apt,$(SCREEN)) \
	|| echo "tests of the viewer are skipped; to run them: sudo apt-get install $(SCREEN)"

viewer:
	@! command -v dpkg >/dev/null || dpkg -s $(VIEWER) >/dev/null 2>&1 || $(call apt,$(VIEWER)) \
	|| echo "the demo draws no pictures here; to have them, first: sudo apt-get install $(VIEWER)"

lint:
	$(call made,.venv/dev)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proto:
	$(call made,.venv/dev)
	$(BIN)/python proto/generate.py

docs:
	$(call made,.venv/docs)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

parity:
	$(call made,.venv-parity/dev)
	@# pytest ends with 5 where it finds no test: with ARGS of one file that may be so for one kind, but not for both
	@none=0; for kind in parity "not parity and not soak"; do \
	  $(PARITY)/python -m pytest -m "$$kind" --ignore=tests/test_house.py $(ARGS) \
	  || { code=$$?; [ $$code = 5 ] || exit $$code; none=$$((none + 1)); }; \
	done; [ $$none -lt 2 ] || exit 5

goldens:
	$(call made,.venv-parity/dev)
	$(PARITY)/python tests/golden/make_goldens.py

soak:
	$(call made,.venv/fuzz)
	$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

bench:
	$(call made,.venv/dev .venv-parity/dev)
	$(BIN)/python -m pytest tests/bench --benchmark-enable -q
	$(BIN)/python tests/bench/whole.py $(ARGS)
	$(BIN)/python tests/bench/questions.py

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: detmetrics needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=python3.11 …" >&2; exit 1; }
	@[ "$$(df -Pm . | awk 'NR == 2 {print $$4}')" -ge $(ROOM) ] || $(stopped)
	@$(PYTHON) -m venv .venv >/dev/null || { $(call apt,python3-venv) && $(PYTHON) -m venv .venv; } || { rm -rf .venv; echo "error: Python lacks its module venv; install it first: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PIP) --upgrade pip || $(stopped)
	@touch $@

.venv/core: .venv/python pyproject.toml constraints.txt
	@echo "installing the core into .venv"
	@$(PIP) -e . || $(stopped)
	@touch $@

# everything that a user may want; open3d-cpu is open3d in a quarter of the size
.venv/all: .venv/python pyproject.toml constraints.txt
	@echo "installing everything into .venv: some minutes, and silent"
	@$(TORCH)
	@$(PIP) -e '.[parquet,report,server,detector]' --group viz || $(stopped)
	@touch $@ .venv/core

.venv/dev: .venv/python pyproject.toml constraints.txt
	@echo "installing everything and the tools into .venv: some minutes, and silent"
	@$(TORCH)
	@$(PIP) -e '.[parquet,report,server,detector]' --group dev || $(stopped)
	@touch $@ .venv/all .venv/core

.venv/docs: .venv/python pyproject.toml constraints.txt
	@echo "installing what the documentation needs into .venv"
	@$(PIP) -e '.[parquet,report,server]' --group docs || $(stopped)
	@touch $@

.venv/fuzz: .venv/dev
	@$(PIP) --group fuzz || $(stopped)
	@touch $@

# pandas and what follows it are what the evaluation of av2 imports; its other wishes are gigabytes.
.venv-parity/dev: pyproject.toml tests/parity/constraints.txt
	@[ -x $(PARITY)/python ] || $(PYTHON) -m venv .venv-parity
	$(PARITY)/python -m pip install -q -c tests/parity/constraints.txt --upgrade pip
	$(PARITY)/python -m pip install -q -c tests/parity/constraints.txt -e '.[parquet,report]' --group test \
	  nuscenes-devkit truckscenes-devkit pandas polars joblib universal-pathlib
	$(PARITY)/python -m pip install -q -c tests/parity/constraints.txt --no-deps av2
	@touch $@

clean:
	rm -rf .venv .venv-parity .make.lock demo build docs/_made .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find detmetrics tests -name __pycache__ -prune -exec rm -rf {} +
