# The commands of the README. Needs Python >= 3.11 and make; everything else is installed below the cache folder.
ENV  ?= local
DATA ?= delete

PYTHON ?= python3
CACHE  := $(or $(MARKETLAKE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/marketlake)
BOOT   := $(CACHE)/bootstrap/$(shell cksum < toolchain/bootstrap.txt | cut -d' ' -f1)
UV     := $(BOOT)/bin/uv
RUN    := .venv/bin/python
STACKS := $(RUN) -m stacks.cli
SUITE  := $(RUN) -m tests.suite $(if $(SEED),--seed $(SEED))
# The wheels of a mirror that is a folder take the place of the package index.
WHEELS := $(if $(MARKETLAKE_TOOL_MIRROR),$(abspath $(wildcard $(MARKETLAKE_TOOL_MIRROR)/wheels)))
NODE_IMAGES := pause busybox coredns metrics-server local-path-provisioner

export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help stack-tools up preview preview-report policy golden refresh down status tools images env check format validate reference test test-tools test-unit test-integration test-stack test-kubernetes test-airgap chaos bench breakages clean cluster cluster-down

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ENV=local    the environment (stack); a file stacks/environments/Pulumi.<ENV>.yaml"
	@echo "  DATA=keep    with 'down': keep the data folder"

up: stack-tools ## tools, environment, pulumi up, a first collection of the sample files
	@$(STACKS) up --env $(ENV)

preview: stack-tools ## what `up` would change
	@$(STACKS) preview --env $(ENV)

preview-report: stack-tools ## the same as Markdown for a pull request (OUT=file)
	@$(STACKS) preview-report --env $(ENV) $(if $(OUT),--out $(OUT))

policy: stack-tools ## hold the recorded state to the policies (STATE=file: one that `pulumi stack export` wrote)
	@$(STACKS) policy --env $(ENV) $(if $(STATE),--state $(STATE))

refresh: stack-tools ## compare the state with what really runs
	@$(STACKS) refresh --env $(ENV)

down: stack-tools ## destroy the stack: no process, port or file stays (DATA=keep: the data does)
	@$(STACKS) down --env $(ENV) --data $(DATA)

status: .venv/.synced ## every service, its health, address, version, memory
	@.venv/bin/marketlake --env $(ENV) status

stack-tools: .venv/.synced
	@$(RUN) -m toolchain install $$($(STACKS) groups --env $(ENV) | sed 's/^/--group /')

tools: .venv/.synced ## install every pinned tool; costs nothing when they are there
	@$(RUN) -m toolchain install

cluster: .venv/.synced ## make this machine a Kubernetes cluster of one node (root; Debian or Ubuntu); ADDRESS=… its address
	@$(RUN) -m playbooks check $(if $(ADDRESS),--address $(ADDRESS))
	@$(RUN) -m toolchain install --group cluster --group kubernetes
	@$(RUN) -m toolchain.images build $(NODE_IMAGES)
	@$(RUN) -m playbooks up $(if $(ADDRESS),--address $(ADDRESS))

cluster-down: .venv/.synced ## undo it: no process, mount, interface, rule or file of the node stays
	@$(RUN) -m playbooks down

images: tools ## build the container images and load them into this machine's node (REGISTRY=host/prefix: push them)
	@$(if $(REGISTRY),$(RUN) -m toolchain install crane,)
	@$(RUN) -m toolchain.images $(if $(REGISTRY),--registry $(REGISTRY))

env: .venv/.synced ## print the exports that put the pinned tools on PATH (for eval, see the README)
	@$(STACKS) env --env $(ENV)

check: .venv/.synced ## format, lint, types, import rules, lock file
	@$(UV) lock --check --quiet
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

format: .venv/.synced ## format the code and mend what the linter can
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

validate: .venv/.synced ## check the settings of all environments, or of ENV, without touching anything
	@$(STACKS) validate $(if $(filter command line environment,$(origin ENV)),--env $(ENV))

reference: .venv/.synced ## write docs/reference and docs/datasets.md from schemas, rules and data contracts
	@$(STACKS) reference

golden: .venv/.synced ## write tests/golden: what each environment consists of, to be reviewed and committed
	@$(RUN) -m tests.golden

test: test-tools ## everything that can be tested on this machine (SEED=… the order of the unit tests)
	@$(SUITE) --coverage $(foreach step,$(BEFORE),--before $(step))

test-unit: .venv/.synced ## only what needs no server
	@$(SUITE) unit

test-integration: test-tools ## only against real servers
	@$(SUITE) integration

test-stack: test-tools ## only the throw-away stack
	@$(SUITE) stack

test-kubernetes: test-tools ## only a cluster made of this machine, and the throw-away stack in it
	@$(SUITE) kubernetes

# A cluster is tried where one can be made; where not, this says why, and so do the tests.
test-tools: .venv/.synced
	@$(RUN) -m toolchain install --group packages
	@if $(RUN) -m playbooks check; then $(RUN) -m toolchain install --group kubernetes --group cluster && $(RUN) -m toolchain.images build; fi

breakages: .venv/.synced $(if $(ONLY),,test-tools) ## break one promise at a time and see its test turn red (ONLY="03 17", JOBS=2)
	@$(RUN) -m tests.breakages $(ONLY) $(if $(JOBS),--jobs $(JOBS))

test-airgap: test-tools ## the platform from a mirror of tools and wheels, in a network namespace without any registry (root)
	@$(RUN) -m pytest -v tests/airgap

chaos: test-tools ## what no crash may break: TARGET=commits, kills, stack or kubernetes (all but the last), ROUNDS=…, SEED=…
	@$(RUN) -m tests.chaos $(TARGET) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

bench: tools ## the figures, with the machine they were measured on
	@$(RUN) -m bench

clean: ## remove the virtual environment (the tools stay in the cache)
	rm -rf .venv

# Its folder carries the checksum of bootstrap.txt, so that a younger checkout does not install it again.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "marketlake needs Python >= 3.11, this is %s: name another with PYTHON=..." % sys.version.split()[0])'
	@echo "uv: installing the pinned version into $(BOOT)" >&2
	@rm -rf $(BOOT).part && mkdir -p $(dir $(BOOT))
	@$(PYTHON) -m venv $(BOOT).part
	@$(BOOT).part/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		$(if $(WHEELS),--no-index --find-links $(WHEELS)) -r toolchain/bootstrap.txt
	@rm -rf $(BOOT) && mv $(BOOT).part $(BOOT)

.venv/.synced: $(UV) uv.lock pyproject.toml runtime/pyproject.toml
	@echo "python: installing the locked libraries into .venv" >&2
	@$(if $(WHEELS),$(INSTALL_OFFLINE),$(UV) sync --frozen --all-packages --quiet --python $(PYTHON))
	@touch $@

# `uv sync` takes every file from the address in the lock; these take it from a folder, proven by the lock all the same.
define INSTALL_OFFLINE
$(UV) venv --quiet --offline --allow-existing --python $(PYTHON) .venv && \
$(UV) export --frozen --offline --all-packages --no-emit-workspace --quiet --output-file .venv/locked.txt && \
$(UV) pip sync --quiet --offline --python .venv --no-index --find-links $(WHEELS) --require-hashes .venv/locked.txt && \
$(UV) pip install --quiet --offline --python .venv --no-index --find-links $(WHEELS) --no-deps \
	--build-constraints toolchain/recipes/wheels/hatchling.txt --editable . --editable runtime
endef
