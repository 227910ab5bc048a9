# Everything a fresh clone needs: `make demo`, `make research`, `make test`.
PYTHON ?= python3
VENV ?= .venv
ITERATIONS ?= 6
WORKERS ?= -n auto --maxprocesses 2
ARGS ?=
BIN := $(VENV)/bin

.PHONY: setup demo research sample test test-slow test-all lint

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

research: setup            ## prepare the corpus once, then run ITERATIONS mutations
	$(BIN)/python prepare.py
	$(BIN)/pytest --autoresearch --iterations $(ITERATIONS) $(WORKERS) $(ARGS)

demo: setup                ## six recorded proposals with a quarter of the budget
	$(BIN)/python prepare.py
	$(BIN)/pytest --autoresearch --iterations 6 --autoresearch-tag demo \
		--autoresearch-budget equal:150ktok $(WORKERS) $(ARGS)

sample: setup              ## make docs/sample again from all recorded proposals
	$(BIN)/python prepare.py
	$(BIN)/pytest --autoresearch --iterations $(words $(wildcard docs/sample/proposals/*)) \
		--autoresearch-proposer replay:docs/sample/proposals --autoresearch-tag sample \
		--junitxml=docs/sample/log.xml --autoresearch-html=docs/sample/report.html $(ARGS)
	$(BIN)/python -m pytest_autoresearch report --tag sample --tsv docs/sample/results.tsv

test: setup                ## the default tier: under ten minutes on two cores
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: setup           ## the slow tier (attacks, browser, long runs): as long again
	$(BIN)/pytest -n 2 --dist worksteal -m slow $(ARGS)

test-all: setup            ## both tiers, as .ci/run has them one after the other
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
