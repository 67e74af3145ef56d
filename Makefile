# Two commands do everything on a fresh machine: `make demo` and `make test`. Both work in an environment of
# their own, .venv, and need Python 3.11 or 3.12.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEEDS ?= 1
STEPS ?= 600

.PHONY: demo test lint format docs benchmarks clean

$(VENV)/.installed: pyproject.toml constraints.txt state_rag.pth
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 13) else "state-rag needs Python 3.11 or 3.12; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# torch first and by its exact version, so that an index with a CPU build can serve it
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# W&B's schema of sweep definitions, for a test; the package asks for an old NumPy that it is not used with
	$(BIN)/python -m pip install --quiet --no-deps sweeps==0.3.0
	touch $@

demo: $(VENV)/.installed  ## train and compare on a simulated screen, then make a report page; SEEDS and STEPS make it longer
	$(BIN)/python benchmarks/demo_screen.py --seeds $(SEEDS) --steps $(STEPS)

test: $(VENV)/.installed  ## the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed  ## the documentation, into docs/_build/html; needs no network
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -b html docs docs/_build/html

benchmarks: $(VENV)/.installed  ## what we claim about cost, measured
	for program in benchmarks/*_cost.py; do $(BIN)/python $$program || exit 1; done
	$(BIN)/python -m benchmarks.counts

clean:
	rm -rf $(VENV) build dist demo docs/_build
