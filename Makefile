# Two commands: make demo, make test. Both set themselves up in .venv on the first run.
# make test-long: the tests that take minutes each, which make test leaves out.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FOR_DEMO := $(VENV)/.installed-for-demo
FOR_TEST := $(VENV)/.installed-for-test
BUNDLED := data/traits/pessimism/trait.yaml data/traits/refusal/trait.yaml data/carriers/benign/prompts.jsonl \
  data/carriers/numbers/prompts.jsonl
# DVC refuses to pull over a trait of one's own, which is no reason to stop where all else is there.
OWN := data/traits or data/carriers has changes of your own, so nothing was pulled over them
PULL := $(BIN)/dvc pull --quiet --remote bundled data/carriers.dvc data/traits.dvc || \
  { ls $(BUNDLED) >/dev/null && echo "$(OWN)" >&2; }
HERE := PATH="$(CURDIR)/$(BIN):$$PATH"
PYTEST := $(HERE) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope --durations=20
LONG := slow or whole or ray or team or browser

.PHONY: demo test test-long clean

demo: $(FOR_DEMO)
	@$(PULL)
	@$(HERE) $(BIN)/python cli.py run-cells
	@$(HERE) $(BIN)/dvc repro --quiet >/dev/null
	@$(BIN)/python cli.py results
	@echo
	@echo "Report:     results/report.html (open it in a browser)"
	@echo "MLflow UI:  $(BIN)/python cli.py ui"

test: $(FOR_TEST)
	@$(PULL)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports
	$(PYTEST)

test-long: $(FOR_TEST)
	@$(PULL)
	$(PYTEST) -m "$(LONG)"

$(FOR_DEMO): EXTRAS := track,report
$(FOR_TEST): EXTRAS := track,report,team,ray,dev
$(FOR_DEMO) $(FOR_TEST): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; or: make PYTHON=/path/to/python3"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) results .undertow
