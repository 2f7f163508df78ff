# The workshop. Needs Python 3.11 or newer with its venv module, git and make; everything else is
# installed into .venv from the lock files in requirements/.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help page demo smoke test test-wheel check docs reference format bench figures chaos proofs
.PHONY: soak lock deb bundle test-systemd release clean

# PYTHON=python3.12 make test  chooses the interpreter that .venv is made with.
PYTHON ?=
# A file's tests stay together; more processes than this wait for the disk.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile
# PYTEST_ARGS="tests/unit -k outbox" make test  runs a part.
PYTEST_ARGS ?=
# PLUGIN=~/thermometer make demo  runs a plugin of yours on the first box.
PLUGIN ?=
# QUICK=1 make chaos  runs few cases; CHAOS_ARGS="power --seed 7" make chaos  one suite, as once.
QUICK ?=
CHAOS_ARGS ?=
# The seed of the cases that gate a change; `make chaos` takes another one each time.
GATE := 5
# LOCK_ARGS=--upgrade make lock  takes newer versions; without it only what must change changes.
LOCK_ARGS ?=
# HOURS=24 make soak  takes a day.
HOURS ?= 1
# VERSION=0.1.1 make deb  builds as another version, for a test of an upgrade.
VERSION ?=
STALLS ?= 2

BIN := .venv/bin
READY := .venv/.ready
UI := console/ui
UI_READY := $(UI)/node_modules/.ready
PAGE := console/nexus_console/page/index.html
WHEEL_VENV := build/wheel-venv
WHEEL_READY := $(WHEEL_VENV)/.ready
RELEASE_VENV := build/release-venv
RELEASE_READY := $(RELEASE_VENV)/.ready
WHEEL_TESTS := tests/unit tests/integration/test_link.py tests/integration/test_console_process.py

# Nobody's own environment leaks in. Debian keeps mosquitto in /usr/sbin, off a user's PATH.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_USER PIP_TARGET PIP_REQUIRE_VIRTUALENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(PATH):/usr/sbin:/sbin

PIP := -m pip install --quiet --quiet --require-hashes -r requirements/dev.txt

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

page: $(PAGE) ## Build the console's page from console/ui

demo: $(READY) $(PAGE) ## Run five boxes with emulated vehicles, a broker and a console until Ctrl-C
	@PYTHONPATH=demo $(BIN)/python -m nexus_demo $(if $(PLUGIN),--plugin "$(PLUGIN)")

smoke: $(READY) ## Prove the whole path once, with a broker outage and a kill -9; ends with JSON
	@mkdir -p build
	@PYTHONPATH=demo $(BIN)/python -m nexus_demo.smoke

test: $(READY) $(PAGE) ## Run every test, a few cases of each chaos suite, and test the wheel
	@$(BIN)/pytest $(PARALLEL) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory chaos QUICK=1 CHAOS_ARGS="--seed $(GATE)"
	@$(MAKE) --no-print-directory test-wheel

# STALLS=20 make test-systemd  blocks the loop so often, which is the full count.
test-systemd: $(READY) $(PAGE) ## Install the packages on a real systemd in a container, and break things
	@NEXUS_STALLS=$(STALLS) $(BIN)/pytest tests/systemd

test-wheel: $(READY) $(PAGE) $(WHEEL_READY) ## Build the wheel, install it apart from the sources, test it
	@rm -rf build/wheel build/wheel-run && mkdir -p build/wheel build/wheel-run
	@$(BIN)/python -m hatchling build --target wheel --directory build/wheel
	@$(WHEEL_VENV)/bin/python -m pip install --quiet --quiet --no-deps --force-reinstall \
		build/wheel/nexus_core_agent-*.whl
	@cd build/wheel-run && NEXUS_TESTED=wheel $(CURDIR)/$(WHEEL_VENV)/bin/pytest $(PARALLEL) \
		--config-file $(CURDIR)/pyproject.toml --rootdir $(CURDIR) -p no:cacheprovider \
		$(addprefix $(CURDIR)/,$(WHEEL_TESTS))

check: $(READY) $(UI_READY) ## Check format, lint, types, import directions and the documentation
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(NPM) run --silent check
	@$(MAKE) --no-print-directory docs

docs: $(READY) ## Build the documentation into build/docs; a warning is an error
	@rm -rf build/docs
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

reference: $(READY) ## Write what the reference takes from the code anew
	@PYTHONPATH=docs $(BIN)/python -m nexus_docs

format: $(READY) ## Put the format right, and the lint findings that ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Measure the budgets, beside peers too; ends with JSON
	@mkdir -p build
	@PYTHONPATH=demo $(BIN)/python benchmarks/run.py

figures: bench ## Measure, and put the figures, the machine and the plot into docs/figures
	@PYTHONPATH=docs $(BIN)/python -m nexus_docs figures

chaos: $(READY) ## Break things and see that nothing promised is lost; ends with JSON
	@mkdir -p build
	@PYTHONPATH=demo $(BIN)/python -m tests.chaos $(if $(QUICK),--quick) $(CHAOS_ARGS)

proofs: $(READY) ## Put what the last chaos run has found into docs/proofs.md
	@PYTHONPATH=docs $(BIN)/python -m nexus_docs proofs

COMPILE_ALONE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links $(LOCK_ARGS)
COMPILE := $(COMPILE_ALONE) pyproject.toml

soak: $(READY) ## Live with random faults for HOURS and see that nothing is lost or grows
	@mkdir -p build
	@PYTHONPATH=demo $(BIN)/python -m tests.chaos.soak --hours $(HOURS)

lock: $(READY) ## Write requirements/*.txt anew from pyproject.toml
	@$(COMPILE) requirements/build.in --output-file requirements/dev.txt \
		--extra obd --extra ble --extra can --extra console --extra postgresql --extra demo \
		--extra docs --extra dev
	@$(COMPILE_ALONE) requirements/node.in --output-file requirements/node.txt
	@$(COMPILE_ALONE) requirements/peers.in --output-file requirements/peers.txt
	@$(COMPILE_ALONE) requirements/release.in --output-file requirements/release.txt
	@$(COMPILE) --constraint requirements/dev.txt --output-file requirements/agent.txt \
		--extra obd --extra ble --extra can
	@$(COMPILE) --constraint requirements/dev.txt --output-file requirements/console.txt \
		--extra console --extra postgresql

deb: $(READY) $(PAGE) ## Build the Debian packages of agent and console into build/deb
	@$(BIN)/python packaging/build.py deb $(addprefix --version ,$(VERSION))

bundle: $(READY) ## Build the agent's offline bundle into build/bundle
	@$(BIN)/python packaging/build.py bundle $(addprefix --version ,$(VERSION))

release: $(READY) $(PAGE) $(RELEASE_READY) ## Build all that a release has into build/release
	@$(BIN)/python packaging/build.py release

clean: ## Remove what was built and every cache; .venv stays
	rm -rf build dist $(UI)/node_modules $(dir $(PAGE))
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# -- set-up: silent when nothing changed ----------------------------------------------------------

$(READY): requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing what requirements/dev.txt locks into .venv" >&2
	@$(BIN)/python $(PIP)
	@$(BIN)/python -m pip install --quiet --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The machine's Node and npm if they are new enough, otherwise Node from the Python index.
NPM = $(BIN)/python $(UI)/npm.py

$(UI_READY): $(UI)/package.json $(UI)/package-lock.json $(UI)/.npmrc $(UI)/npm.py | $(READY)
	@echo "Installing what $(UI)/package-lock.json locks into $(UI)/node_modules" >&2
	@$(NPM) ci --silent
	@touch $@

$(PAGE): $(UI_READY) $(wildcard $(addprefix $(UI)/,*.html *.ts *.js public/* src/* src/*/*))
	@echo "Building the page" >&2
	@$(NPM) run --silent build -- --logLevel warn
	@touch $@

$(WHEEL_READY): requirements/dev.txt | $(BIN)/python
	@echo "Making $(WHEEL_VENV) for the wheel's tests" >&2
	@$(BIN)/python -m venv --clear $(WHEEL_VENV)
	@$(WHEEL_VENV)/bin/python $(PIP)
	@touch $@

$(RELEASE_READY): requirements/release.txt | $(BIN)/python
	@echo "Making $(RELEASE_VENV) for the bills of materials" >&2
	@$(BIN)/python -m venv --clear $(RELEASE_VENV)
	@$(RELEASE_VENV)/bin/python -m pip install --quiet --quiet --require-hashes -r $<
	@touch $@

# A candidate must run (a version manager's shim may not) and be able to make a venv.
$(BIN)/python:
	@new=""; \
	for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		new="$$python"; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
		echo "Making .venv with $$("$$python" --version), $$(command -v "$$python")" >&2; \
		exec "$$python" -m venv --clear .venv; \
	done; \
	if [ -n "$$new" ]; then \
		echo "make: $$new cannot make a venv: its modules venv and ensurepip are needed" \
			"(Debian and Ubuntu: apt-get install python3-venv)" >&2; \
	else \
		echo "make: no Python 3.11 or newer among: $(PYTHON) python3 python3.13 python3.12" \
			"python3.11; name one with PYTHON=/path/to/python3" >&2; \
	fi; \
	exit 1
