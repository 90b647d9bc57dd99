# `make run` is the shop, `make test` its tests; `make help` lists the others.

PYTHON ?= python3
BIN := .venv/bin

BROKERS ?= valkey redis-server rabbitmq

.PHONY: help install run test operations attack brokers faults bench check docs format new clean-data

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

run: install ## Run the whole shop in this terminal
	@exec $(BIN)/python manage.py run

test: install ## Run the tests, in minutes, on their own PostgreSQL and Redis
	@$(BIN)/python -m pytest -n 3 --dist worksteal

operations: install ## Prove what docs/operations/ says: deploys, probes, signatures, logs, alerts, PgBouncer
	@$(BIN)/python -m pytest -n 3 --dist loadfile -m operations -rs

attack: install ## Attack the shop in production settings: slow clients, secrets, addresses, filters, messages
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m attack -rs

brokers: install ## Run what must hold everywhere on Valkey, Redis and RabbitMQ, and with other stores of results
	@for broker in $(BROKERS); do \
		echo "On $$broker:"; TEST_BROKER=$$broker $(BIN)/python -m pytest -n 2 -q -rs -m every_broker || exit 1; \
	done
	@for results in django-cache redis; do \
		echo "Results in $$results:"; TEST_RESULTS=$$results $(BIN)/python -m pytest -n 2 -q -rs -m every_store || exit 1; \
	done

faults: install ## Break everything and prove that each order ends once: make faults SEED=7 ORDERS=10000
	@$(BIN)/python -m pytest tests/faults -m "faults or properties" -q $(if $(SEED),--seed=$(SEED)) $(if $(ORDERS),--orders=$(ORDERS))

bench: install ## Measure the shop beside the tutorial's way; `make bench ORDERS=1000` is quicker
	@$(BIN)/python -m benchmarks $(if $(ORDERS),--orders $(ORDERS))

check: install ## Lint, format, types, import contracts, migrations, deploy checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml .
	@$(BIN)/python .ci/audit
	@# No database is needed to compare models and migrations; Django warns that it found none.
	@$(BIN)/python -W "ignore:Got an error checking" manage.py makemigrations --check --dry-run --skip-checks
	@$(MAKE) --no-print-directory docs
	@unset VAR_DIR; export DEBUG=false SECRET_KEY=$$(head -c 48 /dev/urandom | base64 -w0) ALLOWED_HOSTS=shop.example.com; \
		export STATIC_ROOT=$$(mktemp -d); trap 'rm -r "$$STATIC_ROOT"' EXIT; \
		$(BIN)/python manage.py collectstatic --noinput --verbosity 0 && \
		$(BIN)/python manage.py check --deploy --fail-level WARNING

docs: install ## Make the documentation, with its search, in var/docs
	@$(BIN)/python manage.py reference
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs var/docs
	@echo "The documentation is var/docs/index.html."

format: install ## Let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

new: install ## Start a project of your own, without the shop: make new DIR=../mine NAME=mine
	@$(BIN)/python starter/new.py "$(DIR)" "$(NAME)"

clean-data: ## Delete the data of `make run`, after stopping it
	rm -rf var

install: .venv/installed ## Make .venv and install the pinned requirements

.venv/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)"; exit 1; }
	@# Cleared only when it is broken: the shop may be running from it in another terminal.
	@$(PYTHON) -m venv $$($(BIN)/python -c pass 2>/dev/null || echo --clear) .venv || \
		{ echo "Python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the pinned requirements into .venv …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt --requirement requirements-dev.txt
	@touch $@
