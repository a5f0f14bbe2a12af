# Each target does all the set-up it needs: a virtual environment in .venv, with the versions of constraints.txt.
#
#   make sweep     run the LoRA sweep; typed again, it goes on where it stopped
#   make report    a small sweep with confirmation, controls and equal FLOPs, and its page: results/report/report/index.html
#   make test      all tests, in JOBS processes        (make test ARGS="-m 'not slow and not ray'": the quick ones)
#   make lint      ruff, ruff format, mypy
#   make docs      write the generated pages of docs/ again, and search_spaces/sweep.schema.json
#   make bench     the benchmarks; each prints its ratios and fails where a figure is not reached
#   make clean     remove .venv and caches; never results
#
# Variables: PYTHON (3.11 or newer), ARGS (passed on), JOBS (2), PIP_ARGS (passed to every `pip install`, for example
# PIP_ARGS="--extra-index-url URL" with the index of PyTorch's CPU-only wheels, which saves gigabytes on a machine without a GPU).

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP_INSTALL = $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup sweep report test lint format docs bench clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

# torch goes first and alone: it is the long download, and a failure there should be seen as one.
# setuptools is installed rather than fetched into an isolated build, so that its version is the pinned one too.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "jepa_ray needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "[1/3] making $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/3] installing torch (the largest download; takes some minutes)"
	@$(PIP_INSTALL) setuptools torch
	@echo "[3/3] installing Ray, transformers and the rest (takes some minutes)"
	@$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

sweep: $(READY)
	$(BIN)/python -m jepa_ray.sweep search_spaces/lora.yaml $(ARGS)

# A trial that FAILED does not keep the page from being written (exit code 1); bad input does (2), and so does Ctrl-C (130).
report: $(READY)
	@$(BIN)/python -m jepa_ray.sweep search_spaces/report.yaml $(ARGS) || test $$? -eq 1
	@$(BIN)/python -m analysis.report results/report

# Compiled modules are kept in any case (in __pycache__, until `make clean`): the tests start over a hundred processes.
test: $(READY)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A page is replaced only if its command succeeds. families.md takes minutes: it builds every family's tiny model.
docs: $(READY)
	$(BIN)/python -m jepa_ray.plan.schema
	$(BIN)/python -m jepa_ray.plan.pages
	$(BIN)/python -m jepa_ray.evaluation.tasks_page > docs/tasks.md.new && mv docs/tasks.md.new docs/tasks.md
	$(BIN)/python -m analysis.paper --markdown > docs/paper.md.new && mv docs/paper.md.new docs/paper.md
	$(BIN)/python -m jepa_ray.conformance --all --markdown > docs/families.md.new && mv docs/families.md.new docs/families.md

# All of them run, also after one has failed.
bench: $(READY)
	@status=0; for name in step objectives generation overhead keeping false_positives search_efficiency warm_start report; do \
		echo "benchmarks.$$name"; $(BIN)/python -m benchmarks.$$name $(ARGS) || status=1; \
	done; exit $$status

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -path ./results -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
