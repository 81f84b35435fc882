# make demo: installs, then reproduces Table I on an embedded data set.
# make check: installs, then checks format and types and runs the fast tests, in about two minutes.
# make test: installs, then checks format and types and runs every test, in about 20 minutes.
# We measured both times on two cores, without compiled programs in .cache.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Two processes run the tests. Each takes half of the list, so that what a file's tests share is made once; the one that
# is done first takes over some of the other's.
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo check test clean

demo: $(VENV)/installed
	$(BIN)/python -m ppvit_jax reproduce table1 --config=configs/demo.py --output=runs/demo

check: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(call with_types,$(PYTEST) -m "not slow")

test: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(call with_types,$(PYTEST))

# Checks the types beside a command. What it found comes last, and a failure of either is one of the target.
define with_types
@$(BIN)/pyright --pythonpath $(BIN)/python > $(VENV)/types.txt 2>&1 & types=$$!; \
	echo '$(1)'; $(1); tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/types.txt; \
	test $$tests = 0 && test $$types = 0
endef

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11: choose another by make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/created requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[tables]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-test.txt
	touch $@

clean:
	rm -rf $(VENV)
