# `make run` is the shop, `make test` its tests; `make help` lists the others.

PYTHON ?= python3
BIN := .venv/bin

# All of them: what an installation can do without, the tests want.
REQUIREMENTS := $(wildcard requirements*.txt)

BROKERS ?= valkey redis-server rabbitmq

# Slow tests start several servers and processes each, on a machine that may have more to do.
PATIENT := --timeout=600

.PHONY: help install run test operations attack looks screenshots lighthouse brokers faults guards lab matrix bench bench-quick peers monitoring check docs format new \
	clean-data

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

run: install ## Run the whole shop in this terminal
	@exec $(BIN)/python manage.py run

test: install ## Run the tests, in minutes, on their own PostgreSQL and Redis
	@$(BIN)/python -m pytest -n 3 --dist worksteal

operations: install ## Prove what takes minutes: deploys, probes, logs, alerts, embedded servers, pages that follow by push
	@$(BIN)/python -m pytest tests/operations -m operations -n 3 --dist loadfile -rs $(PATIENT)

attack: install ## Attack the shop in production settings: slow clients, secrets, addresses, filters, messages
	@$(BIN)/python -m pytest tests/attack -m attack -n 2 --dist loadfile -rs $(PATIENT)

looks: install ## Read each page with axe, in both themes, with its messages and errors showing
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m looks tests/looks/test_axe.py -rs

screenshots: install ## Take pictures of each page in both themes and four widths, into var/screenshots
	@$(BIN)/python -m pytest -q -m looks tests/looks/test_screenshots.py -rs

lighthouse: install ## Measure eight pages with Lighthouse, where Node and Chromium are
	@$(BIN)/python -m pytest -q -m looks tests/looks/test_lighthouse.py -rs

brokers: install ## Run what must hold everywhere on Valkey, Redis and RabbitMQ, and with other stores of results
	@for broker in $(BROKERS); do \
		echo "On $$broker:"; TEST_BROKER=$$broker $(BIN)/python -m pytest -n 2 -q -rs $(PATIENT) -m every_broker \
			$$(grep -rlw mark.every_broker tests --include='test_*.py') || exit 1; \
	done
	@for results in django-cache redis; do \
		echo "Results in $$results:"; TEST_RESULTS=$$results $(BIN)/python -m pytest -n 2 -q -rs $(PATIENT) -m every_store \
			$$(grep -rlw mark.every_store tests --include='test_*.py') || exit 1; \
	done

faults: install ## Break everything and prove that each order ends once: make faults SEED=7 ORDERS=10000
	@$(BIN)/python -m pytest tests/faults -m "faults or properties" -q $(if $(SEED),--seed=$(SEED)) $(if $(ORDERS),--orders=$(ORDERS))

guards: install ## Take out each guard in turn and see a test turn red: make guards SINCE=origin/main ONLY=mail
	@$(BIN)/python -m tests.guards $(if $(SINCE),--since=$(SINCE)) $(ONLY)

lab: install ## Run the experiments: the tutorials' way must fail as it is told, ours must hold
	@$(BIN)/python -m pytest tests/lab -m lab -n 2 --dist worksteal -q

matrix: install ## Run what must hold everywhere on each Python, Django and PostgreSQL of this machine
	@$(BIN)/python -m tests.matrix

monitoring: install ## Run Prometheus, Alertmanager and Grafana beside `make run`, where they are on the PATH
	@exec $(BIN)/python manage.py monitoring

bench: install ## Measure the shop beside the tutorial's way; `make bench ORDERS=1000` is quicker
	@$(BIN)/python -m benchmarks --json var/bench.json $(if $(ORDERS),--orders $(ORDERS))

bench-quick: install ## Measure backlog and one click alone, in less than three minutes
	@$(BIN)/python -m benchmarks --json var/bench-quick.json --orders 1000 --only gateway_inside one_click

peers: install ## Run the same orders under seven other engines, and kill each of them ten times
	@$(BIN)/python -m benchmarks.peers $(if $(ORDERS),--orders $(ORDERS))

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
	@$(BIN)/python -m benchmarks.page
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

.venv/installed: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)"; exit 1; }
	@# Cleared only when it is broken: the shop may be running from it in another terminal.
	@$(PYTHON) -m venv $$($(BIN)/python -c pass 2>/dev/null || echo --clear) .venv || \
		{ echo "Python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the pinned requirements into .venv …"
	@$(BIN)/pip install --quiet --disable-pip-version-check $(addprefix --requirement=,$(REQUIREMENTS))
	@touch $@
