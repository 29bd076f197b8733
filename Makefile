# Two commands: make demo, make test. Both set themselves up in .venv on the first run.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(INSTALLED)
	@$(BIN)/dvc pull --quiet --remote bundled data/carriers.dvc data/traits.dvc
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@$(BIN)/python cli.py results
	@echo
	@echo "Report:     results/report.html (open it in a browser)"
	@echo "MLflow UI:  $(BIN)/python cli.py ui"

test: $(INSTALLED)
	@$(BIN)/dvc pull --quiet --remote bundled data/carriers.dvc data/traits.dvc
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 2

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; or: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[track,report,team,dev]'
	@touch $@

clean:
	rm -rf $(VENV) results .undertow
