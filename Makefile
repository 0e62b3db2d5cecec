# Laisee: everything runs from here. `make` alone lists the commands.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help run demo crowd drill backup restore test lint types messages browser pictures nightly bench bench-docs clean venv venv-dev checks openapi

PY := .venv/bin/python
# The first Python from 3.11 on that can make a virtual environment; PYTHON=… overrides.
FIND_PYTHON = found=; for p in "$(PYTHON)" python3 /usr/bin/python3 python3.14 python3.13 \
	python3.12 python3.11; do \
	[ -n "$$p" ] && "$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 || continue; \
	[ -n "$$found" ] || found=$$p; \
	"$$p" -c 'import ensurepip; ensurepip.version()' >/dev/null 2>&1 && { found=$$p; break; }; \
	done; \
	[ -n "$$found" ] || { echo "! no Python 3.11 or newer found; name one: make $@ PYTHON=/path/to/python3" >&2; exit 1; }
# Of the pictures that the browser tests can take, those that the docs show.
PICTURES = log-in choose builder growth review live kill payout-desk payout-queue payout payout-decide reconciliation difference share share-app share-won share-earned case case-release case-forfeit disclosure
# Most tests wait for servers, so two processes, each with servers of its own, take half the time.
# A file stays in one of them: its tests share what they started.
SIDE_BY_SIDE = -n 2 --dist loadfile --no-loadscope-reorder
# Where Python may not write beside its sources, each of a copy's ten processes would compile them.
COMPILE = $(PY) -m compileall -q -j 0 engine packets campaign referrals loadtest
# Checks that only read the code still need settings; they reach no server.
TOOL_ENV = env -u PORT -u EDGE_PORT \
	SECRET_KEY=tools-that-only-read-the-code-pass-the-checks-as-well-0123456789 \
	ENCRYPTION_KEYS=tools:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= DATABASE_URL=postgres://tools@127.0.0.1:9/tools \
	REDIS_URL=redis://127.0.0.1:9/0 DATA_DIR=/nonexistent/laisee LOG_LEVEL=ERROR

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  PORT (8000), EDGE_PORT (8001) and DATA_DIR (./.data) let several copies run side by side:'
	@echo '  make run PORT=8100 EDGE_PORT=8101 DATA_DIR=.data-second'
	@echo '  DATABASE_URL and REDIS_URL (see docs/) take the place of the servers that come along.'
	@echo '  DEMO_EXIT=1 make demo  stops after the money check.'

run: venv ## everything on this machine: servers, demo campaign, web, edge, workers
	@exec $(PY) -m engine.run up --with-parent

demo: venv ## run, send a crowd, show the money check, stay up
	@exec $(PY) -m engine.run demo --with-parent

crowd: venv ## send a crowd to the copy that runs (HOST=… PEOPLE=… IN_FLIGHT=…)
	@exec $(PY) -m loadtest.crowd_run

drill: venv ## replay a night with a verdict on latency, errors and money (DRILL=lny_eve PEAK=…)
	@exec $(PY) -m loadtest.drill_run

backup: venv ## keep the books (FILE=…; else a new file below DATA_DIR/backups)
	@exec $(PY) -m engine.run backup --with-parent $(if $(FILE),"$(FILE)")

restore: venv ## put kept books back (FILE=…), lanes in new epochs, and check the money
	@exec $(PY) -m engine.run restore --with-parent $(if $(FILE),"$(FILE)")

test: venv-dev browser ## lint, types, walls, schema checks, then every test
	@$(MAKE) -j 2 --output-sync=target lint types checks
	@exec $(PY) -m pytest -q $(SIDE_BY_SIDE)

lint: venv-dev ## ruff: format and rules
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

types: venv-dev ## mypy
	@$(TOOL_ENV) $(PY) -m mypy

checks: venv-dev ## walls between the rooms, missing migrations, the committed OpenAPI schema
	@$(TOOL_ENV) $(PY) -c 'from importlinter.cli import lint_imports_command as main; main()' --no-cache --no-logo
	@$(TOOL_ENV) $(PY) -W ignore manage.py makemigrations --check --dry-run
	@$(TOOL_ENV) $(PY) -W ignore manage.py spectacular --validate --fail-on-warn | diff -u docs/openapi.yaml - \
		|| { echo '! docs/openapi.yaml differs from the code: make openapi, then read the diff' >&2; exit 1; }

openapi: venv-dev ## write docs/openapi.yaml from the code
	@$(TOOL_ENV) $(PY) manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

browser: venv-dev ## Chromium and Chinese fonts for the browser tests (by apt-get, as root)
	@$(PY) -m tests.browser.chromium

pictures: venv-dev browser ## take the pictures of the docs anew, from the browser tests
	@LAISEE_PICTURES=docs/pictures LAISEE_PICTURES_ONLY="$(PICTURES)" $(PY) -m pytest -q -m "" tests/browser

messages: venv-dev ## bring the Chinese catalogue in line with the code
	@$(TOOL_ENV) $(PY) -W ignore manage.py messages

nightly: venv-dev ## the slow tests
	@exec $(PY) -m pytest -q -m nightly

bench: venv-dev ## measure everything as ratios in one run (QUICK=1: three minutes; OUT=…: the JSON)
	@exec $(PY) -m tests.bench

bench-docs: venv-dev ## write the tables of docs/performance.md anew from the last bench (OUT=…)
	@$(PY) -m tests.bench docs

clean: venv ## forget all data of the copy in DATA_DIR (refuses while it runs)
	@$(PY) -m engine.run clean

venv: ## make .venv and install what running needs
	@$(FIND_PYTHON); "$$found" engine/run/bootstrap.py requirements-local.txt
	@$(COMPILE)

venv-dev: ## the same with what testing needs
	@$(FIND_PYTHON); "$$found" engine/run/bootstrap.py requirements-local.txt requirements-dev.txt
	@$(COMPILE)
