# What can be done here. `make` lists it. Nothing is written outside this folder, but for Debian packages (`make system`)
# and the Asterisks that tests and the demo share ($FASTAGI_CACHE, else ~/.cache/fastagi).

PYTHON ?= python3
VENV   ?= .venv
WORKERS ?= 2
# `make test` mostly waits for calls, so it has more workers than there are cores. Each starts Asterisks of its own.
TEST_WORKERS ?= 4
PYTHONS ?= 3.12 3.13 3.14
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# What tests, demo and benchmarks run beside Python: program or file to look for = Debian package that has it.
NEEDS := mmdebstrap=mmdebstrap sipp=sip-tester sox=sox /usr/lib/*/sox/libsox_fmt_mp3.so=libsox-fmt-mp3 ffmpeg=ffmpeg \
         multimon-ng=multimon-ng openssl=openssl chromium=chromium tar=tar initdb=postgresql
APT_INSTALL := apt-get install -y -q --no-install-recommends

.DEFAULT_GOAL := help
.PHONY: help venv system asterisk demo test unit mutants floors pythons lock check format bench soak clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) .demo-needs ## a real Asterisk, a real call, recorded and delivered, in under three minutes
	@$(BIN)/fastagi demo $(DEMO_ARGS)

# Only what fetches an Asterisk, and only where there is none: neither installed nor fetched before.
.PHONY: .demo-needs
.demo-needs:
	$(if $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin"; command -v asterisk || command -v mmdebstrap || \
	    ls -d "$${FASTAGI_CACHE:-$$HOME/.cache/fastagi}"/asterisk-22 2>/dev/null),@:,$(call apt,mmdebstrap))

test: system check asterisk ## everything: check, then all tests, with real Asterisks 22 and 16
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

unit: $(READY) ## the unit tests alone: no Asterisk, no Debian packages, about a minute
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" tests/unit $(PYTEST_ARGS)

# Each has a Python environment of its own beside .venv; what none of these machines has is passed over, and said.
floors: $(READY) ## the unit tests with the lowest versions that pyproject.toml allows
	@UV=$(BIN)/uv PYTHON=$(BIN)/python WORKERS=$(WORKERS) .ci/lane floors

pythons: $(READY) ## the unit tests with each newer Python that is found here: 3.12, 3.13, 3.14
	@for version in $(PYTHONS); do UV=$(BIN)/uv WORKERS=$(WORKERS) .ci/lane $$version || exit 1; done

lock: $(READY) ## pin what the container installs: deploy/requirements.lock
	@$(BIN)/uv pip compile -q --upgrade --extra all --python-version 3.12 --python-platform linux --generate-hashes \
	    --no-emit-index-url --no-annotate --custom-compile-command 'make lock' -o deploy/requirements.lock pyproject.toml

check: $(READY) ## ruff, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## let ruff format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## against the peers, side by side; figures are ratios within one run
	@for folder in benchmarks/*/; do \
	    name=$$(basename $$folder); case $$name in soak|mutants) continue;; esac; \
	    if [ -f $$folder/__main__.py ]; then echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; \
	    elif [ -f $$folder/run.py ]; then echo "== $$name"; $(BIN)/python $$folder/run.py || exit 1; fi; \
	done

mutants: $(READY) ## change 300 single points of the code: the unit tests notice at least nine of ten
	$(BIN)/python -m benchmarks.mutants $(MUTANTS_ARGS)

soak: $(READY) ## hours of calls with faults in between; nothing may be lost, nothing may grow
	$(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

venv: $(READY) ## the Python environment in .venv

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory .python3-venv
	@[ -x $(BIN)/python ] || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

# Installs what is missing and nothing else; a second run only looks. $(1): the packages.
define apt
	@if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	if [ -n "$$sudo" ] && ! sudo -n true 2>/dev/null; then \
	    echo "missing, and this user may not install: run  apt-get install $(1)  as root"; exit 1; fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive $(APT_INSTALL) $(1)
endef

MISSING = $(strip $(foreach need,$(NEEDS),$(if $(shell PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)" \
          command -v $(firstword $(subst =, ,$(need))) || ls $(firstword $(subst =, ,$(need))) 2>/dev/null),,$(lastword \
          $(subst =, ,$(need))))))

system: ## the Debian packages that tests and benchmarks need (root, or sudo without a password)
	$(if $(MISSING),$(call apt,$(MISSING)),@:)

.PHONY: .python3-venv
.python3-venv:
	$(call apt,python3-venv)

asterisk: $(READY) ## fetch Asterisk 22 and 16 into the cache, without installing them
	@$(BIN)/python -c 'from fastagi.testing.packages import find_asterisk as f; print(*(f(v).version for v in (22, 16)))'

clean: ## remove what was made here (the cache of Asterisks stays)
	rm -rf $(VENV) .lanes build dist *.egg-info demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
