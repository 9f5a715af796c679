# Every target sets up .venv first when it is missing or older than what it is made from.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
TORCH := torch==2.13.0
# Where the default index serves a CUDA build and you want the CPU one:
#   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: setup demo up test test-fast test-crash test-cluster test-docs test-fuzz test-past test-log test-soak test-webhooks lint format bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/finetrail demo $(ARGS)

up: setup
	$(BIN)/finetrail up $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Most tests wait for servers; two at a time fill two cores, the longest files first (tests/conftest.py).
test: lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup
	$(BIN)/pytest -m "not infra and not slow" $(ARGS)

# Every command of the README and of docs, on a clean clone with a set-up of its own; about 25 minutes.
test-docs: setup
	$(BIN)/python -m tests.docs.walk $(ARGS)

# A hundred kills under load; about 15 minutes on two cores.
test-crash: setup
	$(BIN)/python -m tests.crash.matrix $(ARGS)

# Three NATS nodes, the leader killed ten times during 10,000 commands, each node wiped; 5 minutes.
test-cluster: setup
	$(BIN)/python -m tests.cluster.kills $(ARGS)

# Fifty jobs of three users on two agents, of which one is killed; every decision and every reason is checked.
test-queue: setup
	FINETRAIL_TEST_QUEUE_JOBS=50 $(BIN)/pytest tests/queueing $(ARGS)

# Random commands, repeats, races and deaths; all that is read is compared after each step.
test-log: setup
	$(BIN)/python -m tests.log.machine $(ARGS)

# Everything at once for half an hour while processes die: memory, disk, tasks, connections stay flat.
test-soak: setup
	$(BIN)/python -m tests.soak $(ARGS)

# A receiver that is down for a simulated hour and 10,000 events, and kills of whoever delivers; a minute.
test-webhooks: setup
	FINETRAIL_TEST_WEBHOOK_EVENTS=10000 $(BIN)/pytest tests/delivery $(ARGS)

# The past at a thousand random points against what was shown of it; about a minute.
test-past: setup
	$(BIN)/python -m tests.projections.points $(ARGS)

# Every route as every role, with what its description allows and what it does not.
test-fuzz: setup
	$(BIN)/python -m tests.fuzz.api $(ARGS)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m bench.main_job $(ARGS)
	$(BIN)/python -m bench.core --json
	$(BIN)/python -m bench.log --json

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
