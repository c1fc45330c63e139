# make demo   the environment, synthetic data, NeuroNet trained and tested, its tables: about ten minutes on two cores
# make test   the environment and the whole test suite
# Anything else is `segexp`: see README.md.

PYTHON ?= python3
BIN := .venv/bin
# One worker per core, each with one thread: the tests are many and small.
CORES := $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo test lint lock clean

help:
	@grep -E '^# make' Makefile | cut -c3-

# Made again when the lock file or the package's metadata changes.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] < (3, 14), \
	  f"segexp needs Python 3.11, 3.12 or 3.13; {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv .venv
	@echo "installing the packages of requirements.lock (about 5 GB with CUDA, five minutes)"
	$(BIN)/pip install --disable-pip-version-check --quiet --progress-bar on --require-hashes -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/installed
	$(BIN)/segexp phantom data=ukbiobank scale=demo
	$(BIN)/segexp table 'neuronet_*' scale=demo
	@echo "the tables are below outputs/tables, the runs below outputs/runs; next: $(BIN)/segexp --help"

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check segexp tests

# Needs uv. torch and torchvision are a pair: raise both together.
lock:
	printf 'torch==2.12.0\ntorchvision==0.27.0\n' | uv pip compile --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --extra dev --constraint - pyproject.toml -o requirements.lock

clean:
	rm -rf .venv
