# Needs Python >= 3.11 and make; everything else is installed below this folder from uv.lock.
PYTHON ?= python3
UV_VERSION := 0.13.8
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON_PREFERENCE := only-system
UV := .venv-tools/bin/uv
BIN := .venv/bin

.PHONY: serve demo test test-all check torture bench bench-full lock clean

serve: .venv/.ready
	$(BIN)/reelay serve --sandbox

.venv-tools/.ready: Makefile
	$(PYTHON) -c 'import sys; sys.exit("Reelay needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/.ready: .venv-tools/.ready pyproject.toml uv.lock
	$(UV) sync --frozen --quiet --python $(PYTHON)
	@touch $@

.venv-openai-json-era/.ready: .venv-tools/.ready pyproject.toml uv.lock
	UV_PROJECT_ENVIRONMENT=.venv-openai-json-era $(UV) sync --frozen --quiet --python $(PYTHON) --only-group openai-json-era
	@touch $@

demo: .venv/.ready
	$(BIN)/reelay demo

# Most of these tests wait for a server most of the time, so there may be more of them than cores.
PYTEST := $(BIN)/pytest -n 4 --dist loadfile
MONEY := $(addprefix tests/whole/test_,bills.py budgets.py cancelling.py falling_back.py idempotency.py lost_answers.py operator.py rate_limits.py)

test: .venv/.ready .venv-openai-json-era/.ready
	$(PYTEST) -m "not long"
	REELAY_TEST_ENGINE=postgresql $(PYTEST) -m "not long" $(MONEY)

test-all: .venv/.ready .venv-openai-json-era/.ready
	REELAY_TEST_ENGINE=postgresql $(PYTEST) -m "not long" tests/whole
	$(BIN)/pytest -n 3 --dist loadfile -m long

check: .venv/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

torture: .venv/.ready
	$(BIN)/python -m tests.torture

bench: .venv/.ready
	$(BIN)/python -m tests.bench

bench-full: .venv/.ready
	$(BIN)/python -m tests.bench.finance
	$(BIN)/python -m tests.bench.finance --engine postgresql

lock: .venv-tools/.ready
	$(UV) lock

clean:
	rm -rf .venv .venv-tools .venv-openai-json-era .cache
