# Everything runs in a virtual environment of its own; only Python, pip and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Small tensors run fastest on one thread each; pytest-xdist uses the cores.
TEST_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help run test test-slow lint format bench support clean

help:
	@echo "make run     set up and show the main job: one image, answered untouched and trimmed, with report and overlay"
	@echo "make test    run the test suite"
	@echo "make test-slow run what it leaves out: more kernels and methods in every model family"
	@echo "make support run the family matrix and write docs/support.md from its results"
	@echo "make lint    check style and types"
	@echo "make format  fix style"
	@echo "make bench   speed and memory at half the depth and a quarter of the width of LLaVA-1.5-7B"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
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

test-slow: $(INSTALLED)
	$(TEST_THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

support: $(INSTALLED)
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
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
