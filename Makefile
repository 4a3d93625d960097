# What a person or CI does here: `make help`.

BIN := .venv/bin
STUBS := bourse_pb2.py bourse_pb2.pyi bourse_pb2_grpc.py bourse_pb2_grpc.pyi

# Processes that run tests. Most tests wait more than they compute.
JOBS := 2

# HA=1: with a database of three nodes and two catalogs. `bench` and `failover` measure that, too.
COMPOSE := docker compose $(if $(HA),-f compose.yaml -f compose.ha.yaml)

# The environment is always .venv, with a Python that this machine already has.
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never

# Generates the stubs below the folder $(1). Its plugins are programs in $(BIN).
protoc = PATH="$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) \
	--grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) proto/bourse.proto

.DEFAULT_GOAL := help
.PHONY: help up down local test faults bench scale failover soak lint proto proto-check checkov venv

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target text; do printf '%-12s %s\n' "$$target" "$$text"; done

up: ## build the images, start everything in containers, wait until it is healthy; HA=1 with the database of three nodes
	@stack/versions.sh
	$(COMPOSE) up --build --wait || { $(COMPOSE) logs --tail 10; exit 1; }

down: ## stop and remove the containers; the volumes stay; HA=1 as for `up`
	$(COMPOSE) down

local: venv ## start everything as processes of this machine, without containers
	$(BIN)/python -m stack.local $(ARGS)

test: venv ## run the tests, SLOW=1 the longest too; ARGS="-k name" goes to pytest
	$(BIN)/python -m pytest -n $(JOBS) $(if $(SLOW),,-m "not slow") $(ARGS)

faults: venv ## break the running stack for two minutes and check its promises; ARGS="--seed 7"
	$(BIN)/python -m faults run $(ARGS)

bench: venv ## measure each kind of request, the least that it could cost, and a plain rival; HA=1 on PostgreSQL beside SQLite; ARGS="--only trade --rounds 2"
	$(BIN)/python -m bench $(if $(HA),stores,requests) $(ARGS)

scale: venv ## measure with more orders, stocks, replicas, workers; ARGS="--only workers"
	$(BIN)/python -m bench scale $(ARGS)

failover: venv ## measure how long trades wait when the leader dies; HA=1 when a catalog or the primary dies; ARGS="--kills 5"
	$(BIN)/python -m bench $(if $(HA),takeover,failover) $(ARGS)

soak: venv ## load for an hour, then faults: do memory, files, threads and logs stay flat? ARGS="--for 600"
	$(BIN)/python -m bench soak $(ARGS)

lint: venv ## check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

proto: venv ## regenerate the gRPC stubs
	$(call protoc,.)

proto-check: venv ## fail if the stubs are not those that proto/bourse.proto generates
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call protoc,$$fresh) && \
	for stub in $(STUBS); do \
		diff -u "proto/$$stub" "$$fresh/proto/$$stub" || { echo "stale: run make proto" >&2; exit 1; }; \
	done

# It has an environment of its own: its packages are not in uv.lock; the date fixes their versions.
checkov: ## look for weak settings in terraform/
	@stack/uv.sh tool run --exclude-newer 2026-11-20 --from checkov==3.3.30 checkov \
		--directory terraform --framework terraform --skip-download --compact --quiet $(ARGS)

# Every target first compares the environment with uv.lock. If nothing changed, it takes milliseconds.
venv: ## make the Python environment in .venv as uv.lock has it
	@stack/uv.sh sync --frozen --group dev
