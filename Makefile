# SPDX-License-Identifier: Apache-2.0
# The one entry for people and CI. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/dev.txt requirements/controller.txt
# A stamp named after what was installed: the environment is brought up to date exactly when one of these files changes.
VENV_STAMP := $(VENV)/.installed-$(shell cat $(LOCKS) controller/pyproject.toml 2>/dev/null | sha256sum | cut -c1-16)

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: venv
venv: $(VENV_STAMP) ## Make .venv, or bring it up to date with requirements/

$(VENV_STAMP): $(LOCKS)
	@tools/make_venv.sh "$(PYTHON)" "$(VENV)" "$@"

.PHONY: lock
lock: $(VENV_STAMP) ## Pin requirements/*.in into requirements/*.txt again
	@cd requirements && export UV_CUSTOM_COMPILE_COMMAND='make lock' && \
	  compile() { uv pip compile --quiet --no-config --universal --python-version 3.11 "$$@"; } && \
	  compile controller.in --override overrides.txt --output-file controller.txt && \
	  compile dev.in --output-file dev.txt

# ---------------------------------------------------------------------------------------------------------- checks
LINTS := ruff mypy imports yaml ansible docs spelling tree

.PHONY: lint
lint: $(addprefix lint-,$(LINTS)) ## Run every check that needs no host (ruff, mypy, import-linter, yamllint, ansible-lint, antsibull-docs, codespell, check_tree)

.PHONY: $(addprefix lint-,$(LINTS))
lint-ruff: $(VENV_STAMP)
	ruff check
	ruff format --check
lint-mypy: $(VENV_STAMP)
	mypy
lint-imports: $(VENV_STAMP)
	lint-imports --no-logo
lint-yaml: $(VENV_STAMP)
	yamllint --strict .
lint-ansible: $(VENV_STAMP)
	ansible-lint --offline
lint-docs: $(VENV_STAMP)
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self $(COLLECTION)
lint-spelling: $(VENV_STAMP)
	git ls-files -z | xargs -0 codespell
lint-tree:
	tools/check_tree.py

.PHONY: test-sanity
test-sanity: $(VENV_STAMP) ## ansible-test sanity on the collection (two minutes the first time)
	tools/sanity.sh

.PHONY: format
format: $(VENV_STAMP) ## Format the Python code and fix what ruff can fix
	ruff check --fix
	ruff format

# ----------------------------------------------------------------------------------------------------------- tests
LEVELS := unit property codec modules policy l7 molecule fleet

.PHONY: test
test: packages venv ## Run all levels of tests (root, Debian 12); installs what it needs
	@tools/levels.py $(LEVELS)

# The levels are told apart by where a test lives and how it is written, so nobody has to mark anything:
# a hypothesis test is a property, what talks to a real switch or database lies in a directory of its own.
COLLECTION := collections/ansible_collections/qiniu/qnet
POLICY := controller/tests/policy
MODULES := $(COLLECTION)/tests/integration
FAST := controller/tests $(COLLECTION)/tests/unit tests --ignore=$(POLICY) --ignore=tests/e2e --ignore=tests/l7 --ignore=tests/mixed

# Most of what these tests do is to wait for processes. Those of one file share what they have started. Of those with
# packets (`live`) there are not more at once than the smallest machine has processors.
SIDE_BY_SIDE = --dist loadfile -n

.PHONY: test-codec test-unit test-property test-modules test-policy test-l7 test-l7-lab test-molecule test-fleet
test-unit: $(VENV_STAMP) ## Unit and simulated-switch tests
	pytest $(SIDE_BY_SIDE) 3 -m "not hypothesis" $(FAST)
test-property: $(VENV_STAMP) ## Property tests (hypothesis)
	pytest $(SIDE_BY_SIDE) 2 -m hypothesis $(FAST)
test-codec: $(VENV_STAMP) ## The contract suite with the codec of Ryu 4.34 (test-unit runs it with os-ken)
	tools/install_ryu.sh $(BIN)/python .cache/codec-ryu
	QNET_OPENFLOW_CODEC=ryu PYTHONPATH=.cache/codec-ryu pytest $(SIDE_BY_SIDE) 3 controller/tests/contract
test-modules: $(VENV_STAMP) ## Every module against a private ovsdb-server and a private Open vSwitch
	pytest $(SIDE_BY_SIDE) 3 $(MODULES)
test-policy: $(VENV_STAMP) ## Random tenants: oracle = pipeline = packets on a live Open vSwitch
	pytest $(SIDE_BY_SIDE) 3 -m "not live" $(POLICY); simulated=$$?; pytest $(SIDE_BY_SIDE) 2 -m live $(POLICY) && exit $$simulated
test-l7: $(VENV_STAMP) ## Every option of the L7 balancer: real requests to a real nginx
	pytest tests/l7
test-l7-lab: packages venv ## The same in a lab of its own, over the overlay, and 200 changes under load (20 minutes; not part of test)
	QNET_L7_LAB=up QNET_LAB=$(or $(QNET_LAB),qnet-l7) QNET_LAB_CONTROLLERS=1 QNET_LAB_SWITCHES=2 pytest -s tests/l7
test-molecule: $(VENV_STAMP) ## Roles on hosts of the lab: converge, idempotence, verify
	tools/molecule.sh
test-fleet: $(VENV_STAMP) ## The whole system over SSH in the lab
	pytest tests/e2e

.PHONY: test-mixed
test-mixed: packages venv ## Debian 12 and 13, two underlays, user space's and the kernel's datapath in one fleet (not part of test: about an hour and a half)
	pytest tests/mixed

# ---------------------------------------------------------------------------------------------------------- benches
# Each executable file of bench/ is one; bench-NAME runs bench/NAME.py (underscores as hyphens).
BENCHES := $(shell find bench -maxdepth 1 -name '*.py' -executable -printf '%f\n' | sort)

.PHONY: bench
bench: packages venv ## Measure everything beside its peers (root, Debian 12, a quiet machine)
	@for bench in $(BENCHES); do echo "== $$bench"; PYTHONPATH=. bench/$$bench || exit; done

bench-%: packages venv
	@PYTHONPATH=. bench/$(subst -,_,$*).py

ROUNDS ?= 20

.PHONY: drills
drills: packages venv ## Break things on the lab, ROUNDS times each (20: about an hour and a half), into docs/operations/drills.md
	tests/drills/run.py --rounds $(ROUNDS)

.PHONY: drill-plays
drill-plays: packages venv ## The plays of an operator's life on the lab under 1,000 connections (half an hour)
	tests/drills/plays.py

.PHONY: drill-kills
drill-kills: packages venv ## Kill site.yml at ROUNDS random points and single modules at 200, and run them again
	tests/drills/kills.py --rounds $(ROUNDS)
	QNET_KILLS=100 pytest $(MODULES)/test_crash_safety.py

# ------------------------------------------------------------------------------------------------------------ demo
HOSTS := .lab/$(or $(QNET_LAB),qnet)/hosts.yml
STEP := tools/step.py .cache/logs

.PHONY: packages
packages:
	@tools/install_packages.sh

.PHONY: demo
demo: ## Lab up, site.yml with the FOP inventory, then show what it does (root, Debian 12)
	@mkdir -p .cache/logs
	@$(STEP)/packages.log "Debian packages" tools/install_packages.sh
	@$(STEP)/venv.log "Python environment" $(MAKE) venv
	@$(STEP)/lab.log "fleet of six hosts" lab/lab up
	@$(STEP)/site.log "site.yml with inventories/fop" ansible-playbook playbooks/site.yml -i inventories/fop -i $(HOSTS)
	@lab/demo

REFERENCE := docs/reference

.PHONY: docs
docs: $(VENV_STAMP) ## The reference into docs/reference (not kept in git): plugins, roles, playbooks, variables, command
	rm -rf $(REFERENCE)
	install -d -m 0755 $(REFERENCE)
	antsibull-docs collection --use-current --output-format simplified-rst --dest-dir $(REFERENCE) qiniu.qnet
	COLUMNS=100 tools/write_reference.py $(REFERENCE)

.PHONY: clean
clean: ## Take the lab down and remove everything that was made here
	@if [[ -e .lab ]]; then lab/lab down; fi
	rm -rf $(REFERENCE) .lab .cache .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .ansible build dist
	find . -name __pycache__ -o -name '*.egg-info' | xargs rm -rf
