# Everything runs in .venv, which `install` makes; no target needs it activated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install data train test lint sweep tensorboard notebooks bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with everything in it (PYTHON=python3.12 picks the interpreter)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 10) <= v < (3, 14) or sys.exit(f"mnist-cnn needs Python 3.10 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: make install PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

data: $(STAMP) ## get MNIST into data/ and verify it
	@$(BIN)/python -m mnist_cnn.data

train: $(STAMP) ## python train.py $(ARGS)
	@$(BIN)/python train.py $(ARGS)

test: $(STAMP) ## the whole test suite
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

sweep: $(STAMP) ## the twelve combinations of network, optimizer and loss, two epochs each
	@$(BIN)/python train.py -m model=cnnnet,simple optim=sgd,adam,rmsprop loss=ce,mse trainer.max_epochs=2 $(ARGS)

tensorboard: $(STAMP) ## all runs and sweeps, at http://localhost:6006
	@$(BIN)/tensorboard --logdir logs $(ARGS)

notebooks: $(STAMP) ## run the notebooks and write them as HTML to logs/notebooks
	@$(BIN)/python -m notebooks.export

bench: $(STAMP) ## this repository's training against the tutorial's loop, images a second
	@$(BIN)/python -m benchmarks.training $(ARGS)

clean: ## remove caches; data, logs and .venv stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build src/*.egg-info
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
