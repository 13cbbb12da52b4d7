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
	@tools/make-venv "$(PYTHON)" "$(VENV)" "$@"

.PHONY: lock
lock: $(VENV_STAMP) ## Pin requirements/*.in into requirements/*.txt again
	@cd requirements && export UV_CUSTOM_COMPILE_COMMAND='make lock' && \
	  compile() { uv pip compile --quiet --no-config --universal --python-version 3.11 "$$@"; } && \
	  compile controller.in --override overrides.txt --output-file controller.txt && \
	  compile dev.in --output-file dev.txt
