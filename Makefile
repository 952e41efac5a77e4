# wsaction: `make` says what there is. Only Python (3.11 or newer) and make are needed.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
PYTEST_ARGS ?=

.PHONY: help run test check bench examples clean

help:
	@echo "make run        serve examples/quickstart.py on 127.0.0.1:$(PORT) (PORT=... for another one)"
	@echo "make test       run the tests, with the coverage gate (PYTEST_ARGS=... is passed on)"
	@echo "make check      ruff (lint and format) and mypy --strict"
	@echo "make bench      the benchmarks, as ratios in one run (QUICK=1: under a minute)"
	@echo "make examples   what is in examples/ and how to start each"
	@echo "make clean      remove the virtual environment and the caches"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "wsaction needs Python 3.11 or newer; none is on PATH (PYTHON=... names one)"; exit 1; }
	@echo "==> creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "==> installing wsaction and its server into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[standard]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "==> installing wsaction and what its tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.run

run: $(VENV)/.run
	@echo "==> serving examples/quickstart.py on ws://127.0.0.1:$(PORT)/ws/ (Ctrl-C stops it)"
	@$(BIN)/python -m uvicorn examples.quickstart:app --host 127.0.0.1 --port $(PORT) --ws websockets-sansio --ws-max-size 65536 --ws-per-message-deflate false

test: $(VENV)/.dev
	@echo "==> running the tests"
	@$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	@$(BIN)/python -m coverage report --fail-under=98

check: $(VENV)/.dev
	@echo "==> ruff and mypy"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

examples:
	@for f in examples/*.py; do echo "$$f: $$(sed -n '1s/^"""\(.*\)/\1/p' $$f)"; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .coverage
