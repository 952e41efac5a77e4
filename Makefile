# wsaction: `make` says what there is. Only Python (3.11 or newer) and make are needed.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
DOCS_VENV ?= .venv-docs
BENCH_VENV ?= .venv-bench
BENCH := $(BENCH_VENV)/bin/python
PORT ?= 8000
PYTEST_ARGS ?=
# What is compiled is kept, whatever the environment says: the tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test check bench docs examples clean

help:
	@echo "make run        serve examples/boards, a shared kanban board, on 127.0.0.1:$(PORT) (PORT=... for another one)"
	@echo "make test       run the tests, three processes for two cores (PYTEST_ARGS=... is passed on; COVERAGE=1: with its gate)"
	@echo "make check      ruff (lint and format) and mypy --strict"
	@echo "make bench      the benchmarks, as ratios in one run (QUICK=1: under a minute; QUESTIONS=routing: only that)"
	@echo "make docs       build the guide and the reference as one site, .docs/site; a warning or a broken link fails"
	@echo "make examples   what is in examples/ and how to start each"
	@echo "make clean      remove the virtual environments and the caches"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "wsaction needs Python 3.11 or newer; none is on PATH (PYTHON=... names one)"; exit 1; }
	@echo "==> creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "==> installing wsaction, its server and what its examples need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[examples]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "==> installing wsaction and what its tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.run

run: $(VENV)/.run
	@echo "==> serving examples/boards, a shared kanban board (Ctrl-C stops it)"
	@echo "    the page      http://127.0.0.1:$(PORT)/  (ada or grace, whose passwords are their names)"
	@echo "    the explorer  http://127.0.0.1:$(PORT)/docs"
	@echo "    the socket    ws://127.0.0.1:$(PORT)/ws/"
	@$(BIN)/python -m wsaction run examples.boards.app:app --port $(PORT)

test: $(VENV)/.dev
	@echo "==> running the tests"
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal \
		$(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=98) $(PYTEST_ARGS)

check: $(VENV)/.dev
	@echo "==> ruff and mypy"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

$(BENCH):
	@test -n "$(PYTHON)" || { echo "wsaction needs Python 3.11 or newer; none is on PATH (PYTHON=... names one)"; exit 1; }
	@echo "==> creating $(BENCH_VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(BENCH_VENV)

$(BENCH_VENV)/.quick: pyproject.toml benchmarks/requirements.txt | $(BENCH)
	@echo "==> installing wsaction and what it is compared with into $(BENCH_VENV)"
	@$(BENCH) -m pip install --quiet --disable-pip-version-check -e . -r benchmarks/requirements.txt
	@touch $@

# One at a time and beside what is there, so that a peer that cannot be installed costs its own row only.
$(BENCH_VENV)/.full: benchmarks/peers.txt | $(BENCH_VENV)/.quick
	@$(BENCH) -m pip freeze --exclude-editable --disable-pip-version-check > $(BENCH_VENV)/there.txt
	@grep -v '^#' benchmarks/peers.txt | while read -r peer; do \
		echo "==> installing $$peer"; \
		$(BENCH) -m pip install --quiet --disable-pip-version-check -c $(BENCH_VENV)/there.txt "$$peer" </dev/null \
			|| echo "==> left out: $$peer cannot be installed here"; \
	done
	@touch $@

bench: $(BENCH_VENV)/$(if $(QUICK),.quick,.full)
	@$(BENCH) -m benchmarks $(if $(QUICK),--quick) $(QUESTIONS)

$(DOCS_VENV)/.docs: pyproject.toml
	@test -n "$(PYTHON)" || { echo "wsaction needs Python 3.11 or newer; none is on PATH (PYTHON=... names one)"; exit 1; }
	@echo "==> installing wsaction and Sphinx into $(DOCS_VENV)"
	@$(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

docs: $(DOCS_VENV)/.docs
	@echo "==> building the site"
	@$(DOCS_VENV)/bin/python examples/guide/_site/build.py

examples:
	@for f in $$(grep -l '^app = ' examples/*.py examples/*/*.py); do \
		sed -n "1s|^\"\"\"\(.*\)\"\"\"$$|$$f: \1|p" $$f; \
		echo "    $(BIN)/python -m wsaction run $$(echo $${f%.py} | tr / .):app"; \
	done
	@for f in examples/guide/*/app.py; do \
		sed -n "1s|^\"\"\"\(.*\)\"\"\"$$|$$f: \1|p" $$f; \
		echo "    $(BIN)/python -m wsaction run app:app --app-dir $${f%/app.py}"; \
	done

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(DOCS_VENV) .docs .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
