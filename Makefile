# `make run` and `make test` need Python 3.11 or later and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run-installed
TEST_STAMP := $(VENV)/.test-installed
# much of the suite waits for real sockets and clocks, so it takes more workers than there are cores
WORKERS ?= 4

.PHONY: run test check audit lint format lock clean browser proxies bench bench-quick

run: $(RUN_STAMP)
	$(BIN)/runstream serve

test: check audit browser proxies
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: lint
	$(BIN)/mypy
	$(BIN)/lint-imports

# known holes in what is installed, and secrets in what is committed; what can't be reached is said, and no failure
audit: $(TEST_STAMP)
	$(BIN)/python -m tests.audit

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# installed by the package manager where that is possible; the tests that need it skip loudly elsewhere
browser: $(TEST_STAMP)
	@sh tests/e2e/install_browser.sh

# the same for nginx and Caddy, which the settings in docs/deployment.md are tried with
proxies:
	@sh tests/e2e/install_proxies.sh

$(VENV)/pyvenv.cfg:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): requirements.lock pyproject.toml $(VENV)/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(TEST_STAMP): requirements-dev.lock $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-dev.lock
	touch $@

# resolves anew for all platforms; needs uv
lock:
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade --extra test pyproject.toml -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate -c requirements-dev.lock pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

bench: $(TEST_STAMP)
	$(BIN)/python -m benchmarks.compare --json build/bench.json

bench-quick: $(TEST_STAMP)
	$(BIN)/python -m benchmarks.compare --quick
