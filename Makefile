# `make up` and `make test` install what they need first; see README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install install-dev up doctor demo test-unit test test-compose faults check format docs bench lock clean

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

up: install
	@exec $(BIN)/orchestrator up

doctor: install
	@exec $(BIN)/orchestrator doctor

demo: install
	@exec $(BIN)/orchestrator demo

test-unit: install-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not supabase" tests/unit

test: install-dev
	$(BIN)/python -m tests.unit.store.supabase.installation
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Needs root on Debian; 3 minutes and 1.5 GB. The engine comes from Debian's packages.
test-compose: install-dev
	$(BIN)/python -m tests.unit.store.supabase.installation
	$(BIN)/python -m tests.compose

faults: install-dev
	$(BIN)/python -m tests.faults

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install-dev
	$(BIN)/python -m tools.failure_page > docs/failures.md
	$(BIN)/python -m tools.settings_page

bench: install-dev
	$(BIN)/python -m tests.bench

lock: install-dev
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra build --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
