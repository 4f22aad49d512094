# The two that matter: `make demo` and `make test`. Each sets up what is missing first.

PYTHON ?= /usr/bin/python3
BIN := .venv/bin
export PYTHON

MAKEFLAGS += --no-print-directory
.SILENT:
.PHONY: help demo test unit lint setup clean

help:
	echo "make demo     eight pages move between NUMA nodes in a guest, and you see how"
	echo "make test     all tests: style, types, units, and real guests"
	echo "make unit     the tests that need no guest (seconds)"
	echo "make lint     style and types"
	echo "make setup    install what is missing: host packages by apt, Python packages into .venv"
	echo "make clean    remove .venv and what tools left here (not runs/, not the cache)"

demo: setup
	$(BIN)/mof demo $(ARGS)

# A file's tests share guests, so a file is not divided; each guest is emulated by one thread, so one CPU has one file.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

unit: setup
	$(BIN)/python -m pytest tests/unit $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

setup:
	sh provision/setup.sh

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
