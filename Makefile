# Two commands do everything: `make demo` and `make test`. The others are parts of them, or tools.
PYTHON ?= python3
unexport PYTHONHOME PYTHONPATH PYTHONSTARTUP
# Without compiled modules, a process takes three times as long to start.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
MINUTES ?= 5
EXAMPLES ?= 2000
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r

# Shown before an install.
SIZE_OF_demo := about 35 MB to fetch and 170 MB on disk, in less than a minute
SIZE_OF_dev := about 150 MB to fetch and 500 MB on disk, in a few minutes

IMAGE ?= orchestration-reconciler:local
SEED ?= 1

.PHONY: help demo test first-test local transcript lint types layers unit integration coverage \
    workers browser simulation simulation-long fuzz chaos losses faults simulation-counts seeded-bugs \
    screenshots drills \
    bench mutation \
    broker-users image deploy-checks audit sbom lock docs clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# -- installs: a lock file and nothing else, into a local environment. Each lock file is complete.

$(VENV)/base.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/reconciler.pth"
	@printf '%s\n' '#!/bin/sh' 'exec "$${0%/*}/python" -I -m reconciler.cli.main "$$@"' > $(BIN)/reconciler
	@chmod +x $(BIN)/reconciler
	@touch $@

$(VENV)/%.stamp: requirements/%.txt | $(VENV)/base.stamp
	@test -z '$(SIZE_OF_$*)' || echo 'Installing requirements/$*.txt into $(VENV), once: $(SIZE_OF_$*).'
	@$(INSTALL) $<
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt | $(VENV)/base.stamp
	@echo 'Installing requirements/dev.txt into $(VENV), once: $(SIZE_OF_dev).'
	@$(INSTALL) requirements/dev.txt
	@{ command -v java && command -v npm; } >/dev/null || $(INSTALL) requirements/emulator.txt
	@touch $@

# Environments that extend another.
$(VENV)/docs.stamp: $(VENV)/runtime.stamp
$(VENV)/deploy.stamp $(VENV)/mutation.stamp: $(VENV)/dev.stamp

# -- the two commands

demo: $(VENV)/demo.stamp  ## Watch the backstop recover from an outage, on embedded parts
	$(BIN)/reconciler demo $(ARGS)

test: lint types layers unit integration workers browser simulation deploy-checks  ## Run all checks and tests

# Installs only what these tests import. The other conftest files would import more.
first-test: $(VENV)/first-test.stamp  ## Run the tests of the diagnosis: a first look for new engineers
	$(PYTEST) --confcutdir=tests/unit/domain tests/unit/domain/test_diagnosis_codes.py

# -- to try things on

local: $(VENV)/dev.stamp  ## Start an empty DynamoDB Local and a broker, until Ctrl-C
	@$(BIN)/python -m tests.support.local

transcript: $(VENV)/dev.stamp  ## Follow README and first hour in a fresh clone, and record it
	$(BIN)/python -m docs.transcript $(ARGS)

# -- their parts

lint: $(VENV)/dev.stamp  ## Run ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp  ## Run mypy, strict
	$(BIN)/mypy

layers: $(VENV)/dev.stamp  ## Run import-linter
	$(BIN)/lint-imports

unit: $(VENV)/dev.stamp  ## Run the unit tests
	$(PYTEST) tests/unit -n 2

integration: $(VENV)/dev.stamp  ## Run the integration tests on moto and on DynamoDB Local
	$(PYTEST) tests/integration -m "not workers and not chaos and not browser" -n 2 --dist worksteal

coverage: $(VENV)/dev.stamp  ## Measure the coverage of unit and integration tests; fails below the floor
	$(PYTEST) tests/unit tests/integration -m "not chaos and not browser" -n 2 --dist loadfile --cov --cov-report=term

workers: $(VENV)/dev.stamp  ## Run the tests with real worker processes on a real broker
	$(PYTEST) tests/integration -m "workers and not chaos" -n 4 --dist loadfile --no-loadscope-reorder

browser: $(VENV)/dev.stamp  ## Test Flower in a headless browser (Debian: chromium, chromium-driver)
	$(PYTEST) tests/integration -m browser -n 2 --dist loadfile

simulation: $(VENV)/dev.stamp  ## Test interleavings, exhaustively and at random
	$(PYTEST) tests/simulation -m "not long" -n 2 --dist loadgroup

simulation-long: $(VENV)/dev.stamp  ## Test the larger ones, and random ones for about MINUTES
	SIMULATION_MINUTES=$(MINUTES) $(PYTEST) tests/simulation -m long -n 2

fuzz: $(VENV)/dev.stamp  ## Send EXAMPLES batches of random messages to a real worker
	MESSAGE_EXAMPLES=$(EXAMPLES) $(PYTEST) tests/integration/workers/test_messages_at_random.py --timeout 0

chaos: $(VENV)/dev.stamp  ## Break real processes for MINUTES, at random from SEED (RECORD=file)
	CHAOS_MINUTES=$(MINUTES) CHAOS_SEED=$(SEED) CHAOS_RECORD="$(RECORD)" $(PYTEST) tests/chaos/test_chaos.py -m chaos $(ARGS)

losses: $(VENV)/dev.stamp  ## Repeat one kind of loss while many children wait, at random from SEED
	CHAOS_SEED=$(SEED) $(PYTEST) tests/chaos/test_losses.py -m chaos $(ARGS)

faults: $(VENV)/dev.stamp  ## Cause each fault on real processes, and write docs/faults.md (ARGS="--only …")
	$(BIN)/python -m tests.chaos.faults $(ARGS)

simulation-counts: $(VENV)/dev.stamp  ## Count all schedules, and write docs/testing.md (half an hour, 12 GB)
	$(BIN)/python -m tests.simulation.count --write

seeded-bugs: $(VENV)/dev.stamp  ## Put known bugs into the code one by one, and see which test catches each
	$(BIN)/python -m tests.simulation.seeded_bugs $(ARGS)

drills: $(VENV)/dev.stamp  ## Run the operator's drills, and write docs/drills.md
	$(BIN)/python -m docs.drills

screenshots: $(VENV)/dev.stamp  ## Make the pictures of the docs again
	$(BIN)/python -m docs.screenshots $(ARGS)

bench: $(VENV)/dev.stamp  ## Measure costs on DynamoDB Local (ARGS=--quick, …)
	@case " $(ARGS) " in *" plot "*) $(INSTALL) requirements/bench.txt;; esac
	$(BIN)/python -m benchmarks $(ARGS)

mutation: $(VENV)/mutation.stamp  ## Change the code line by line, and see which tests notice (hours)
	$(BIN)/python -m tests.mutation $(ARGS)

broker-users: $(VENV)/dev.stamp  ## Record the commands of each role, and write deploy/valkey/users.acl
	WRITE_BROKER_USERS=1 $(PYTEST) tests/integration/workers/test_broker_rights.py

image:  ## Build the image, with commit and date in it (IMAGE=name:tag)
	docker build -t $(IMAGE) --build-arg COMMIT=$$(git rev-parse --short=12 HEAD) --build-arg BUILT=$$(date -u +%Y-%m-%dT%H:%M:%SZ) .

deploy-checks: $(VENV)/deploy.stamp  ## Check templates, manifests, image and licences
	$(PYTEST) tests/deploy -n 2
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m docs.generate_licences --check

audit: $(VENV)/deploy.stamp  ## Look for known vulnerabilities; fails if the service cannot be reached
	$(BIN)/python -m tests.deploy.audit --strict

sbom: $(VENV)/deploy.stamp  ## Write a CycloneDX list of the packages in the image to standard output
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible requirements/runtime.txt

COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(LOCKFLAGS)

lock: $(VENV)/dev.stamp  ## Pin dependencies again (LOCKFLAGS=--upgrade)
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra demo -o requirements/demo.txt
	$(COMPILE) pyproject.toml --extra demo --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra demo --group dev --group deploy -o requirements/deploy.txt
	$(COMPILE) --group emulator -o requirements/emulator.txt
	$(COMPILE) --constraint requirements/dev.txt --group bench -o requirements/bench.txt
	$(COMPILE) --constraint requirements/dev.txt --group docs -o requirements/docs.txt
	$(COMPILE) --constraint requirements/dev.txt --group first-test -o requirements/first-test.txt
	$(COMPILE) --constraint requirements/dev.txt --group mutation -o requirements/mutation.txt

docs: $(VENV)/docs.stamp  ## Build the documentation site in docs/build
	$(BIN)/python -m sphinx -W --keep-going --fresh-env -q -b html docs docs/build

clean:  ## Delete everything that was built here
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache docs/build
