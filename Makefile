# `make scan`: set up and run the layer scan on the packaged model.
# `make test`: set up and run the test suite. `make test-slow`: simulations and long runs.
# `make test-browser`: figures in Chromium or Chrome. `make families`: the table of families.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: scan test test-slow test-browser venv lint bench families clean

scan: $(STAMP)
	$(BIN)/python -m icl_mech.patch --layer-scan

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest tests/slow --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

test-browser: $(STAMP)
	$(BIN)/python -m pytest tests/browser

venv: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-disable-gc -s

families: $(STAMP)
	$(BIN)/python tests/family_table.py

# A half-finished installation leaves no stamp, so the next run starts it again. What pip says of
# odd entries in its index is of no use where it succeeds: it is shown where it fails.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[gemma,dev]' \
		>$(VENV)/pip.log 2>&1 || { cat $(VENV)/pip.log >&2; exit 1; }
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
