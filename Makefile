# Every target sets up what it needs: a virtual environment in .venv, made once and again only when pyproject.toml or
# constraints.txt changed. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first Python that the package admits; asked for only when the environment is made. Or name one: make PYTHON=...
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do $$python -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# One thread a test process: the machine's cores run tests side by side, and who is done takes another's.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal
CLASSIC := .venv-classic
LIBRARIES := scikit-learn==1.5.1 scipy==1.14.1 'pandas<3' python-dateutil pytz six tzdata joblib threadpoolctl xgboost \
	libsvm-official
CONFORMANCE := $(BIN)/python -m tests.conformance.run --jobs 2
# Shows the command as one would type it, then runs it.
run = @echo && echo '$$ $(1)' && PATH="$(CURDIR)/$(BIN):$$PATH" $(1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench docs conformance conformance-all fuzz kill clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' Makefile

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'tlkit needs Python 3.11, 3.12 or 3.13: install one, or say make PYTHON=/path/to/python' >&2; exit 1; }
	@echo 'setting up $(VENV): torch and the rest, a few minutes the first time' >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) --editable '.[dev]'
	@touch $@

setup: $(READY) ## the environment alone

demo: $(READY) ## a PyTorch model to a Core ML package: made, looked into, run on a handwritten digit, timed
	@mkdir -p build
	$(call run,tlkit convert fixtures/digits.py:model --image image=1x1x8x8:GRAYSCALE:scale=1/255 --classes fixtures/digits.labels.txt -o build/digits.mlpackage --force)
	$(call run,tlkit inspect build/digits.mlpackage)
	$(call run,tlkit run build/digits.mlpackage --input image=fixtures/digit_7.png)
	$(call run,tlkit bench build/digits.mlpackage)

test: lint ## the linters and every test that is not slow
	$(PYTEST) -m 'not slow'

test-all: lint conformance ## the linters, every test that this machine can run, and the conformance sample
	$(PYTEST)

lint: $(READY) ## style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## rewrite the sources as the linters want them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## the project's own benchmarks: minutes, on an idle machine
	@for script in benchmarks/*.py; do echo && echo "$$ python $$script" && PYTHONPATH=. $(BIN)/python $$script || exit; done

docs: $(READY) ## write docs/cli.md and docs/python.md from the code, and build the site into build/site
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_python.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

conformance: $(READY) $(CLASSIC)/.ready ## coremltools' own tests through tlkit's executor, a fixed sample of them: minutes
	$(CONFORMANCE) --suite ops --per-function 3
	$(CONFORMANCE) --suite torch --per-function 1
	$(CONFORMANCE) --suite nn --per-function 1
	$(CONFORMANCE) --suite classic --per-function 1 --python $(CLASSIC)/bin/python

# coremltools converts models of scikit-learn up to 1.5.1: a second environment in front of the first.
$(CLASSIC)/.ready: $(READY)
	@echo 'setting up $(CLASSIC): scikit-learn 1.5.1, XGBoost and libsvm, for coremltools' >&2
	@$(BIN)/python -m venv $(CLASSIC)
	@$(CLASSIC)/bin/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps $(LIBRARIES)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(CLASSIC)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_first.pth
	@touch $@

conformance-all: $(READY) $(CLASSIC)/.ready ## every one of those tests, some 43,000: hours
	$(CONFORMANCE) --suite ops --per-function 0
	$(CONFORMANCE) --suite torch --per-function 0
	$(CONFORMANCE) --suite nn --per-function 0
	$(CONFORMANCE) --suite classic --per-function 0 --python $(CLASSIC)/bin/python

fuzz: $(READY) ## damage model files at random and read, run, edit and convert them, for SECONDS (60) in JOBS processes
	$(BIN)/python -m tests.fuzz.fuzz --seconds $(or $(SECONDS),60) $(if $(JOBS),--jobs $(JOBS))

kill: $(READY) ## stop every command that writes at MOMENTS (200) random moments each, in JOBS processes
	$(BIN)/python -m tests.fuzz.kill --moments $(or $(MOMENTS),200) $(if $(JOBS),--jobs $(JOBS))

clean: ## remove the environment and everything built
	rm -rf $(VENV) $(CLASSIC) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
