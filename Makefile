PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-slow lint format bench clean

help:
	@echo "make demo       train the copy task, test it on longer sequences, look at the memory at work"
	@echo "make test       the quick test suite"
	@echo "make test-slow  the long one: trainings that take minutes"
	@echo "make lint       format, lint and types; 'make format' mends the first two"
	@echo "make bench      the fused engine's speed and memory on this machine, some ten minutes"
	@echo "make clean      remove the environment"

# pip reads the constraints for the build's own environment too.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/torchdnc demo

test: $(READY)
	$(BIN)/pytest

test-slow: $(READY)
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/torchdnc bench
	$(BIN)/python benchmarks/pages.py

clean:
	rm -rf $(VENV)
