# Everything runs in a virtual environment of its own; only Python, pip and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# For the tests of real processors, outside of the environment; see tests/processors/torchvision_copy.py.
TORCHVISION := build/torchvision
OLDEST := .venv-oldest
# The engine on every family, and what uses the other packages.
TESTS_OLDEST := tests/engine tests/families tests/regressions tests/core tests/analysis tests/evaluation \
	tests/calibration/test_psigmoid.py tests/cli/test_process.py tests/cli/test_run.py tests/reference/test_items.py \
	tests/reference/test_processing.py tests/runtimes/test_bitsandbytes.py tests/runtimes/test_peft.py
# Real processors that need torchvision, one of them num2words as well.
PROCESSORS_OLDEST := qwen2_5_vl or internvl or smolvlm
# Most modules of torch and transformers are never imported; Python compiles the others when they are, and keeps that.
PIP := --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
# Small tensors run fastest on one thread each; pytest-xdist uses the cores.
TEST_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help run test test-slow install-oldest test-oldest lint format bench support clean

help:
	@echo "make run     set up and show the main job: one image, answered untouched and trimmed, with report and overlay"
	@echo "make test    run the test suite"
	@echo "make test-slow run what it leaves out: other combinations of methods, kernels, batches and model families"
	@echo "make test-oldest run the tests of the engine and the families with the oldest version of every dependency"
	@echo "make support run the family matrix and write docs/support.md from its results"
	@echo "make lint    check style and types"
	@echo "make format  fix style"
	@echo "make bench   speed and memory at half the depth and a quarter of the width of LLaVA-1.5-7B"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt torch
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

PROMPT ?= What color is the star?

run: $(INSTALLED)
	$(BIN)/vistrim run examples/images/scene-3.png --prompt "$(PROMPT)" --compare --overlay overlay.png
	@echo
	@echo "The reference model is tiny: its steps are mostly fixed cost. The same method on random weights of larger size:"
	rm -rf build/run
	$(BIN)/vistrim bench --model llava-1.5-7b --layers 16 --hidden 1024 --new-tokens 8 --repeat 3 \
		--method st3 --method st3:preset=compact --out build/run

test: $(INSTALLED)
	$(TEST_THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Without the index these tests are skipped, and say so.
$(TORCHVISION): $(INSTALLED)
	-$(BIN)/python -m pip install $(PIP) --no-deps --upgrade --constraint constraints.txt --target $@ torchvision num2words docopt

test-slow: $(INSTALLED) $(TORCHVISION)
	$(TEST_THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not support"

# Needs Python 3.10 to 3.12. This release of torch is a CUDA build even where there is no GPU: a download of 3 GB.
# Not at the same time as the other environment: both installations write the package's metadata.
$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt | $(INSTALLED)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install $(PIP) --constraint constraints-oldest.txt --editable '.[dev]'
	$(OLDEST)/bin/python -m pip install $(PIP) --no-deps --constraint constraints-oldest.txt --target $(OLDEST)/processors \
		torchvision num2words docopt
	touch $@

install-oldest: $(OLDEST)/.installed

test-oldest: install-oldest
	$(TEST_THREADS) $(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" $(TESTS_OLDEST)
	$(TEST_THREADS) PYTHONPATH=$(OLDEST)/processors $(OLDEST)/bin/python -m pytest -n 2 -m slow tests/processors -k "$(PROCESSORS_OLDEST)"

support: $(INSTALLED) $(TORCHVISION)
	$(TEST_THREADS) $(BIN)/python -m tests.families.support

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	rm -rf build/bench
	$(BIN)/vistrim bench --model llava-1.5-7b --layers 16 --hidden 1024 --method keep-everything --method st3 \
		--method st3:preset=compact --method fastv --method pyramiddrop --out build/bench

clean:
	rm -rf $(VENV) $(OLDEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
