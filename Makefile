# From a bare checkout to a trained, evaluated model: `make demo`. Needs Linux, make, bash and
# Python 3.11 or newer; everything else is installed into .venv from the hashed lists in requirements/.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
# where it is set, every start of Python would compile torch and transformers anew: ten seconds each
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
READY := .venv/.ready
DATA := data/digits
RUN := runs/demo
TOKENIZER := $(RUN)/tokenizer/text.model
LEARNT := $(RUN)/tokenizers
VISION := $(LEARNT)/vision_tokenizer/model.safetensors
SPEECH := $(LEARNT)/speech_tokenizer/model.safetensors
VOCODER := $(LEARNT)/vocoder/model.safetensors
JUDGES := $(RUN)/judges/model.safetensors
PYTHON ?= python3
CORES := $(shell nproc 2>/dev/null || echo 1)
# the first date that no release in requirements/ may be younger than
LOCKED := 2026-11-08

.PHONY: help setup demo test test-full browser faults gpu check format lock sbom clean

help: ## print these targets
	@echo "trimodal: pre-train, fine-tune and serve one model of images, text and speech"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv, once and again whenever pyproject.toml or requirements/ change

$(READY): pyproject.toml requirements/lock.txt requirements/uv.txt
	@python=$$(for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if command -v $$name >/dev/null && \
	     $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then echo $$name; break; fi; done); \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11 or newer is on the PATH" >&2; exit 1; fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "set-up: making .venv with $$($$python --version)"; \
	  if ! $$python -m venv --clear .venv; then \
	    echo "make: $$python cannot make a virtual environment, its venv or ensurepip is missing" >&2; \
	    exit 1; fi; fi
	@echo "set-up: installing requirements/lock.txt, about 3 GB the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements/uv.txt
	@quiet=$$([ -t 2 ] || echo --quiet); \
	$(BIN)/uv pip install $$quiet --python $(BIN)/python --compile-bytecode --require-hashes \
	  -r requirements/lock.txt || { \
	  echo "set-up: uv could not install them, trying pip, which may know another index"; \
	  $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements/lock.txt; }; \
	$(BIN)/uv pip install $$quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@echo "set-up: done"
	@touch $@

demo: $(RUN)/report.html ## data, tokenizer, training, evaluation and report; goes on where it stopped
	@echo "demo: done, open $<"

# the last file of a build, so where it is the corpus is whole
$(DATA)/test.jsonl: | $(READY)
	@echo "demo: building the digits, read aloud in English and Chinese, in $(DATA)"
	@$(BIN)/trimodal data build digits $(DATA)

$(TOKENIZER): $(DATA)/test.jsonl
	@echo "demo: training the text tokenizer"
	@$(BIN)/trimodal tokenizer train text --data $(DATA)/train.jsonl --out $(RUN)/tokenizer \
	  --vocab-size 600

# one thread each, so two of them at a time
$(VISION): configs/tokenizers/digits_vision.yaml | $(DATA)/test.jsonl
	@OMP_NUM_THREADS=1 $(BIN)/trimodal tokenizer train vision --data $(DATA)/train.jsonl \
	  --config $< --out $(@D)

$(SPEECH): configs/tokenizers/digits_speech.yaml | $(DATA)/test.jsonl
	@OMP_NUM_THREADS=1 $(BIN)/trimodal tokenizer train speech --data $(DATA)/train.jsonl \
	  --config $< --out $(@D)

$(VOCODER): configs/tokenizers/digits_vocoder.yaml $(SPEECH)
	@OMP_NUM_THREADS=1 $(BIN)/trimodal tokenizer train vocoder --data $(DATA)/train.jsonl \
	  --config $< --tokenizer $(LEARNT)/speech_tokenizer --out $(@D)

$(JUDGES): | $(DATA)/test.jsonl
	@OMP_NUM_THREADS=1 $(BIN)/trimodal judge train --data $(DATA)/train.jsonl --out $(@D)

$(RUN)/.learnt: $(TOKENIZER)
	@echo "demo: training the tokenizers of pictures and speech, the vocoder, and two judges"
	@$(MAKE) -j 2 $(VOCODER) $(VISION) $(JUDGES)
	@touch $@

$(RUN)/model/config.json: configs/demo.yaml $(TOKENIZER) $(RUN)/.learnt
	@echo "demo: training; the same command resumes after an interruption"
	@$(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no \
	  --dynamo_backend no --num_cpu_threads_per_process $(CORES) -m trimodal.train configs/demo.yaml

$(RUN)/results.json: $(RUN)/model/config.json
	@echo "demo: evaluating on $(DATA)/test.jsonl"
	@$(BIN)/trimodal eval $(RUN)/model --data $(DATA)/test.jsonl --judges $(RUN)/judges --json $@

$(RUN)/report.html: $(RUN)/results.json
	@echo "demo: writing the report"
	@$(BIN)/trimodal report $(RUN)

test: $(READY) browser ## run every test
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(CORES) --dist worksteal --durations 20 $(PYTEST)

test-full: $(READY) browser ## the same with 1,000 made-up requests an operation, and a cluster of Ray
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} SCHEMA_CASES=1000 $(BIN)/python -m pytest -n $(CORES) \
	  --dist worksteal -m "not faults" $(PYTEST)

browser: ## install Chromium, if there is none and apt may; the tests of the playground need it
	@for name in chromium chromium-browser google-chrome; do \
	  command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "set-up: installing Chromium for the tests of the playground"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
	    --no-install-recommends chromium; } >/dev/null && exit 0; fi; \
	echo "make: there is no Chromium, the tests of the playground are skipped" >&2

faults: $(READY) ## the full tier of injected faults: runs killed fifty times
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/faults tests/integration -m faults

gpu: ## tests, benchmarks and a report on one GPU; uses the Python that is there, installs nothing
	@$(PYTHON) benchmarks/gpu.py

check: $(READY) ## lint, formatting, types, import contracts, architecture
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest -q tests/architecture

format: $(READY) ## format the sources
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: $(READY) ## resolve requirements/ anew, up to the date LOCKED
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --all-extras --exclude-newer $(LOCKED) \
	  pyproject.toml -o requirements/lock.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --extra serving \
	  --constraint requirements/lock.txt --exclude-newer $(LOCKED) \
	  pyproject.toml -o requirements/serving.txt
	@echo uv | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --exclude-newer $(LOCKED) \
	  - -o requirements/uv.txt
	@echo "lock: lock.txt, serving.txt and uv.txt in requirements/ hold releases up to $(LOCKED)"

sbom: $(READY) ## dist/sbom.json: every library of .venv, those inside wheels too, in CycloneDX
	@mkdir -p dist
	@$(BIN)/cyclonedx-py environment --output-reproducible --no-validate --mc-type library --pyproject pyproject.toml \
	  --output-file dist/sbom.json $(BIN)/python
	@$(BIN)/python deploy/bundled.py dist/sbom.json

clean: ## delete the environment, the demo's data and run, and caches
	rm -rf .venv $(DATA) $(RUN) dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
