# Everything runs in .venv, which `install` makes; no target needs it activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CORE := $(VENV)/.installed
NOTEBOOKS := $(VENV)/.installed-notebooks
DEV := $(VENV)/.installed-dev
ARGS ?=
PORT ?= 8000

.DEFAULT_GOAL := help
.PHONY: help install data train test test-long fuzz lint sweep tensorboard notebooks demo bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(CORE) ## make .venv for training, sweeps and TensorBoard (PYTHON=python3.12 picks the interpreter)

$(CORE): pyproject.toml hydra-sweeps/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 10) <= v < (3, 14) or sys.exit(f"mnist-cnn needs Python 3.10 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: make install PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ./hydra-sweeps -e '.[search]'
	@touch $@

# What only some targets need is installed with the first of them.
$(NOTEBOOKS): $(CORE)
	$(PIP) -e ./hydra-sweeps -e '.[search,notebooks]'
	@touch $@

$(DEV): $(CORE)
	$(PIP) -e ./hydra-sweeps -e '.[dev]'
	@touch $@ $(NOTEBOOKS)

data demo bench: export MPLBACKEND := agg # that of a notebook, which may start make, is not installed in .venv

data: $(CORE) ## get MNIST into data/ and verify it
	@$(BIN)/python -m mnist_cnn.data

train: $(CORE) ## python train.py $(ARGS)
	@$(BIN)/python train.py $(ARGS)

test: $(DEV) ## the whole test suite
	@$(BIN)/python -m pytest $(ARGS)

test-long: $(DEV) ## the tests that take minutes each
	@$(BIN)/python -m pytest -m long $(ARGS)

fuzz: $(DEV) ## 45,000 malformed inputs for the readers of untrusted files
	@$(BIN)/python -m pytest tests/fuzz -m long $(ARGS)

lint: $(DEV) ## ruff, mypy and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

sweep: $(CORE) ## the twelve combinations of network, optimizer and loss, two epochs each
	@$(BIN)/python train.py -m model=cnnnet,simple optim=sgd,adam,rmsprop loss=ce,mse trainer.max_epochs=2 $(ARGS)

tensorboard: $(CORE) ## all runs and sweeps, at http://localhost:6006
	@$(BIN)/tensorboard --logdir logs $(ARGS)

notebooks: $(NOTEBOOKS) ## run the notebooks and write them as HTML to logs/notebooks
	@$(BIN)/python -m notebooks.export

demo: $(CORE) ## a page to draw digits on, with the network of the newest run, at http://localhost:8000 (PORT=8001)
	@$(BIN)/python export.py ckpt=latest format=html out=logs/demo/index.html
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory logs/demo # for this machine only

bench: $(CORE) ## this repository's training against the tutorial's loop, images per second
	@$(BIN)/python -m benchmarks.training $(ARGS)

clean: ## remove caches; data, logs and .venv stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
