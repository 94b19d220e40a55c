# `make scan`: set up and run the layer scan on the packaged model.
# `make test`: set up and run the test suite. `make test-slow`: simulations and long runs.
# `make test-thorough`: what takes minutes more. `make test-browser`: figures in Chromium or Chrome.
# `make families`: the table of families.
# `make bench`: against the plain way. `make bench-floor`: against what the machine can do.
# `make bench-sweep`: what a sweep adds to its cells.
# `make costs`: the table of expected costs.
# `make test-tl3`: the same code on TransformerLens 3.9, beside SAELens.
# `make bench-peers`: the same work in TransformerLens, nnsight, nnterp and pyvene; options in ARGS.
# `make device-check`: what only a machine with a GPU can show; options in ARGS, as in
# `make device-check ARGS="--minutes 4"`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VENV_TL3 := .venv-tl3
STAMP_TL3 := $(VENV_TL3)/.installed
VENV_PEERS := .venv-peers
STAMP_PEERS := $(VENV_PEERS)/.installed
STAMP_NNTERP := $(VENV_PEERS)/.installed-for-nnterp
TESTS_TL3 := engine every_family heads packaged_model

.PHONY: scan test test-slow test-thorough test-browser test-tl3 notebooks venv venv-tl3 lint bench \
	bench-floor bench-peers bench-sweep costs families device-check clean

scan: $(STAMP)
	$(BIN)/python -m icl_mech.patch --layer-scan

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Without the checks of shapes, which take a tenth of the time: `make test` has them.
test-slow: $(STAMP)
	CHECK_SHAPES_IN=nothing $(BIN)/python -m pytest -m "slow and not thorough" \
		-o norecursedirs="benchmarks browser tl3" \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder

# Every question on several families and engines, beside what it is expected to cost.
test-thorough: $(STAMP)
	CHECK_SHAPES_IN=nothing $(BIN)/python -m pytest -m thorough \
		-o norecursedirs="benchmarks browser tl3" \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder

test-browser: $(STAMP)
	$(BIN)/python -m pytest tests/browser

# SAELens needs TransformerLens below 4. These files run models, edits, read-outs and gradients, and
# check the shapes of all arrays in `model/`.
test-tl3: $(STAMP_TL3)
	CHECK_SHAPES_IN=model $(VENV_TL3)/bin/python -m pytest tests/tl3 \
		$(TESTS_TL3:%=tests/test_%.py) --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The tutorial with its outputs and figures, to be opened in Jupyter.
notebooks: $(STAMP)
	$(BIN)/jupytext --quiet --to ipynb --output figures/tutorial.ipynb analyses/tutorial.py
	$(BIN)/jupyter-execute --inplace figures/tutorial.ipynb
	@echo "figures/tutorial.ipynb"

venv: $(STAMP)

venv-tl3: $(STAMP_TL3)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)
	CHECK_SHAPES_IN=nothing $(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-disable-gc -s

bench-peers: $(STAMP_NNTERP)
	$(VENV_PEERS)/bin/python tests/benchmarks/peers/compare.py $(ARGS)

bench-floor: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/floor.py

bench-sweep: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/sweep_overhead.py $(ARGS)

costs: $(STAMP)
	$(BIN)/python tests/cost_table.py

families: $(STAMP)
	$(BIN)/python tests/family_table.py

device-check: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m device.check $(ARGS)

# A half-finished installation leaves no stamp, so the next run starts it again. What pip says of
# odd entries in its index is of no use where it succeeds: it is shown where it fails.
# $(1): the folder, $(2): the versions, $(3): what is installed beside this package.
define install
$(PYTHON) -m venv $(1)
@echo "installing into $(1) (some minutes the first time)"
@$(1)/bin/python -m pip install --disable-pip-version-check -c $(2) -e '.[gemma,dev]' $(3) \
	>$(1)/pip.log 2>&1 || { cat $(1)/pip.log >&2; exit 1; }
touch $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt)

$(STAMP_TL3): pyproject.toml constraints-tl3.txt
	$(call install,$(VENV_TL3),constraints-tl3.txt,sae-lens)

$(STAMP_PEERS): pyproject.toml constraints-peers.txt
	$(call install,$(VENV_PEERS),constraints-peers.txt,nnsight nnterp pyvene)

# nnterp 1.3 does not import on nnsight 0.8: it gets an older one, which only its process sees.
$(STAMP_NNTERP): $(STAMP_PEERS) constraints-nnterp.txt
	$(VENV_PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(VENV_PEERS)/nnsight-for-nnterp -r constraints-nnterp.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV_TL3) $(VENV_PEERS) build *.egg-info
