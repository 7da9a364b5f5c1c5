# Two commands do all set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# why: see `entry` in ccakit/cli.py
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 10000

.PHONY: help demo test lint lab notebooks benchmark figures clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	@echo "installing ccakit into $(VENV) (torch and friends: some GB, some minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make demo PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.tests-installed: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(VENV)/.installed  ## draw the default data, train CCA, print the table, write the pictures to runs/demo
	@$(BIN)/ccakit demo

test: lint  ## lint, tests, and every notebook at the smoke preset
	@echo "running the tests"
	@$(BIN)/python -m pytest -q
	@$(MAKE) --no-print-directory notebooks

notebooks: $(VENV)/.tests-installed  ## run every notebook at the smoke preset and compare its text output
	@echo "running the notebooks"
	@CCAKIT_PRESET=smoke $(BIN)/python -m pytest -q --nbval-lax --nbval-cell-timeout=300 notebooks

$(VENV)/.bench-installed: $(VENV)/.installed
	@echo "installing what the benchmarks compare with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

benchmark: $(VENV)/.bench-installed  ## measure what is claimed of speed, and write results/speed.csv
	@$(BIN)/python -m benchmarks.all

figures: $(VENV)/.installed  ## draw every figure and table of the paper anew, into runs/figures
	@for script in figures/figure*.py figures/table*.py; do $(BIN)/python $$script || exit 1; done

lint: $(VENV)/.tests-installed
	@$(BIN)/ruff check .

lab: $(VENV)/.installed  ## open JupyterLab in notebooks/
	@$(BIN)/jupyter lab --notebook-dir=notebooks

clean:  ## remove the environment, drawn data and runs
	rm -rf $(VENV) data runs
