# `make check` is what must pass before a commit, and what continuous integration runs.
PYTHON ?= python

.PHONY: check format

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	@# What failed is run once more by itself: browsers miss deadlines where other tests share the cores.
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile || \
		OMP_NUM_THREADS=1 $(PYTHON) -m pytest --last-failed --last-failed-no-failures none

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .
