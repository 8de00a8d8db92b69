# Each target sets up .venv itself when it is missing or older than the lists of packages.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

setup: .venv/.ready  ## create the virtual environment

# Two processes of one thread each are faster on two cores than one of two; a GPU takes one process.
PROCESSES ?= $(if $(wildcard /dev/nvidia0),1,2)
train: .venv/.ready  ## warm start, curiosity RL and evaluation of the micro model (ARGS="--help" lists the options)
	$(BIN)/python agents/train_vlm.py --processes $(PROCESSES) $(ARGS)

# A file of tests shares what it prepares, so it stays in one process; models of tests are too small for threads.
test: .venv/.ready  ## run the tests, two files at a time (ARGS="-k name" chooses some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# verifiers wants other versions than constraints.txt.
.venv-trl/.ready: CONSTRAINTS := --constraint constraints.txt
.venv-%/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet $(CONSTRAINTS) --editable ".[$*]" "pytest>=8"
	@touch $@

adapters: .venv-trl/.ready .venv-verifiers/.ready  ## test each adapter against its library, in an environment of its own
	.venv-trl/bin/python -m pytest tests/test_trl_adapter.py
	.venv-verifiers/bin/python -m pytest tests/test_verifiers_adapter.py

minimum:  ## run tests with the least versions that pyproject.toml allows (ARGS="tests/test_env.py" chooses some)
	$(PYTHON) -m venv .venv-minimum
	.venv-minimum/bin/pip install --quiet uv
	.venv-minimum/bin/uv pip install --quiet --resolution lowest-direct --editable ".[dev]"
	.venv-minimum/bin/python -m pytest $(ARGS)

lint: .venv/.ready  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready  ## rewrite the sources in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.ready  ## build the pages in build/docs, links checked
	$(BIN)/python -m sphinx -E -W --keep-going -q -d build/doctrees docs build/docs
	@echo open build/docs/index.html

pictures: .venv/.ready  ## draw the README's pictures: the GIF of each environment, and the viewer where Chromium is
	$(BIN)/python docs/make_gifs.py
	$(BIN)/python docs/make_viewer_picture.py

throughput: .venv/.ready  ## measure resets and steps a second (ARGS="--help" lists the options)
	$(BIN)/python benchmarks/throughput.py $(ARGS)

.PHONY: help setup train test adapters minimum lint format docs pictures throughput
