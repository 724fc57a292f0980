# Everything a person does with this project. `make` alone explains itself.
PYTHON ?= python3
BIN := .venv/bin
TALK_TO_KAFKA := bridge dead_letters init kafka_consumer operations publisher redrive tls
STARTED := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help install run test check compat bench bench-http bench-latency bench-growth bench-reads bench-conditions bench-tasks bench-monitoring chaos verify-kube docs site lock clean-data clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: .venv/installed ## make .venv and install what is pinned

.venv/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.x" >&2; exit 2; }
	@echo "installing into .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

run: install ## run everything here: Kafka, PostgreSQL, Valkey, API, bridge, workers (Ctrl-C ends it)
	@LOCAL_STARTED=$(STARTED) exec $(BIN)/python -m bootstrap local

test: install ## all tests: unit, integration and scenarios, on real servers; two at a time, as most of them wait
	@echo "about 1,500 tests on real servers, 20 to 30 minutes on 2 cores; the slowest are listed at the end"
	@$(BIN)/python -m pytest -n $(or $(TESTERS),2) --dist worksteal --durations 10

check: install ## what needs no server: lint, types, imports, unit tests
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -q tests/unit examples/shop/tests/test_tasks.py

compat: .venv-compat/installed ## the integration tests of all that talks to Kafka, with kafka-python 3 in place of kafka-python-ng
	@.venv-compat/bin/python -m pytest $(patsubst %,tests/integration/test_%.py,$(TALK_TO_KAFKA))

.venv-compat/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -m venv .venv-compat
	@grep -v '^kafka-python-ng==' requirements.txt > .venv-compat/requirements.txt
	@.venv-compat/bin/pip install --quiet --disable-pip-version-check -r .venv-compat/requirements.txt -r requirements-dev.txt 'kafka-python==3.0.12'
	@touch $@

bench: install ## drain 300,000 messages in four ways and compare (about 6 minutes)
	@$(BIN)/python -m bench

bench-http: install ## POST and batches against the same Flask without Kafka, and the producer alone
	@$(BIN)/python -m bench.http

bench-latency: install ## how long a message waits until it is stored, at 10, 300 and 3,000 a second
	@$(BIN)/python -m bench.latency

bench-growth: install ## what a million messages cost as the table grows, and how long reads take then (15 minutes)
	@$(BIN)/python -m bench.growth

bench-reads: install ## how long reads take with 20 million messages in 100 leaves, alone and with 80 readers (8 minutes)
	@$(BIN)/python -m bench.reads

bench-conditions: install ## the storing rate while a snapshot is held, and with PostgreSQL 2.5 and 12 ms away (4 minutes)
	@$(BIN)/python -m bench.conditions

bench-tasks: install .venv-bench/installed ## users' tasks against Celery alone, a naive bridge and procrastinate; five tasks; a lone message (8 minutes)
	@$(BIN)/python -m bench.tasks

.venv-bench/installed: requirements.txt
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -c requirements-dev.txt tqdm 'procrastinate==3.10.0' 'psycopg[binary]==3.3.9'
	@touch $@

bench-monitoring: install ## what it costs that Celery's own tools can see the workers (8 minutes)
	@$(BIN)/python -m bench.monitoring

chaos: install ## break everything at random under load, and count: make chaos MINUTES=10 SEED=1
	@$(BIN)/python -m bench.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

verify-kube: install ## build the image and run the manifests as containers, with limits and probes (root; no Docker)
	@kube/verify/verify.sh

docs: install ## write the tables in docs/ that are made from code
	@$(BIN)/python -m bootstrap.docs

lock: install ## pin the newest versions in requirements*.txt
	@$(BIN)/pip install --quiet pip-tools
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements.txt requirements.in
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements-dev.txt requirements-dev.in
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements-site.txt requirements-site.in

site: .venv-site/installed ## build the documentation site into site/; a broken link fails
	@.venv-site/bin/zensical build --clean --strict

.venv-site/installed: requirements-site.txt
	@$(PYTHON) -m venv .venv-site
	@.venv-site/bin/pip install --quiet --disable-pip-version-check -r requirements-site.txt
	@touch $@

clean-data: ## wipe the local stack's data
	rm -rf .local/data .local/logs

clean: clean-data ## and all that was installed or fetched
	rm -rf .local .venv .venv-bench .venv-compat .venv-site site
