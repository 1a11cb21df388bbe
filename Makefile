# `make check` is what must pass before a commit, and what continuous integration runs.
PYTHON ?= python

.PHONY: check format

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .
