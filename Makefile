# `make test` sets up .venv and runs every check. EXTRAS=dev,train also runs the tests that train a tiny model.
PYTHON ?= python3
EXTRAS ?= dev
WORKERS ?= auto
BIN := .venv/bin
READY := .venv/ready-$(EXTRAS)

.PHONY: test lint types golden cards
test: lint types $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .

types: $(READY)
	$(BIN)/mypy

# Writes the expected output of the golden rows, the tables of docs/sources.md and docs/errors.md, and docs/commands.md
# anew; read the difference.
golden: $(READY)
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/golden tests/test_docs.py -k "golden or page_of_sources"
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/e2e/hub/test_publish_page.py

# Writes the data cards of the sample anew; read the difference.
cards: $(READY)
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/e2e/test_cards.py -k current

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
