# Two commands: `make demo` and `make test`. Both make .venv first; nothing but Python 3.11 and a C++ compiler is needed.
PYTHON ?= $(or $(shell command -v python3.11),python3)
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
# A run that was killed left a lock and half-done files: it goes on from there.
SNAKEMAKE := $(BIN)/merba unlock && $(BIN)/snakemake --cores $(CORES) --resources gpu=1 --rerun-incomplete

ifneq ($(words $(CURDIR)),1)
$(error The path of this checkout has a space: $(CURDIR). Snakemake can't start Python there; move the checkout to a path without one)
endif

.PHONY: demo install model report docs check test test-slow slurm-plugin lint lock clean

demo: .venv/demo.installed
	$(SNAKEMAKE)
	@echo "Open results/summary.html; its tables and figures are in results/ too."

# The environment alone.
install: .venv/demo.installed

# Models of real micro-expressions for clips of your own, in models/, each with its card. ROOT= is a folder with the public flow images;
# without it they are downloaded. `merba predict` takes public_flow.safetensors by itself: the method that docs/results.md ranks highest.
FIT = $(BIN)/merba fit --config config/public_flow.yaml $(if $(ROOT),--root "$(ROOT)")
model: .venv/demo.installed
	$(FIT) --experiment kernel --error kernel --out models/public_flow.safetensors
	$(FIT) --experiment merba_single_window --error merba_single_window --out models/public_flow_merba.safetensors

report: .venv/demo.installed
	$(SNAKEMAKE)
	$(BIN)/snakemake --report results/report.html

# The documentation site, in site/.
docs: .venv/test.installed
	$(BIN)/mkdocs build --strict

check: .venv/test.installed lint
	$(BIN)/pytest -q -m "not long and not slow"

test: .venv/test.installed lint
	$(BIN)/pytest -q -m "not slow" --durations=15

# What takes minutes each: the whole demo with its controls, the report in a browser, a run killed ten times, a run on Slurm. What
# is skipped for want of a program is listed.
test-slow: .venv/test.installed
	$(BIN)/pytest -q -m slow -rs --durations=15

# For clusters (docs/cluster.md). No part of the demo's environment: where Slurm's programs exist without a daemon, it slows
# every start of Snakemake.
slurm-plugin: .venv/demo.installed
	$(BIN)/pip install -q --no-deps -r envs/slurm.txt

lint: .venv/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

.venv/demo.installed: envs/torch.txt envs/cpu.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "merba needs Python 3.11: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r envs/torch.txt
	$(BIN)/pip install -q --no-deps -r envs/cpu.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

.venv/test.installed: .venv/demo.installed envs/dev.txt
	$(BIN)/pip install -q --no-deps -r envs/dev.txt
	# Only its Python part, whose reference scan one test compares with; without it that test is skipped.
	-MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(BIN)/pip install -q --no-build-isolation --no-deps mamba-ssm==2.3.2.post1
	touch $@

# New exact versions from requirements.in and dev.in, in an environment of its own.
lock:
	envs/lock.sh $(PYTHON)

clean:
	rm -rf .venv .snakemake
