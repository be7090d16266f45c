# Two commands: `make demo` and `make test`. Both make .venv first; they need only Python (3.11 to 3.14) and a C++ compiler.
# The newest Python that can make an environment: some of pyenv's commands don't run, and Debian's Python may lack pip.
RUNS = $(shell $(1) -c 'import ensurepip, venv' 2>/dev/null && echo $(1))
PYTHON ?= $(or $(call RUNS,python3.14),$(call RUNS,python3.13),$(call RUNS,python3.12),$(call RUNS,python3.11),python3)
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
# For another Python, use another folder: `make check PYTHON=python3.12 VENV=.venv-3.12`.
VENV ?= .venv
BIN := $(VENV)/bin
# A killed run leaves a lock and unfinished files: remove the lock, make the files again, and continue.
SNAKEMAKE := $(BIN)/merba unlock && $(BIN)/snakemake --cores $(CORES) --resources gpu=1 --rerun-incomplete

ifneq ($(words $(CURDIR)),1)
$(error The path of this checkout has a space: $(CURDIR). Snakemake can't start Python there; move the checkout to a path without one)
endif

.PHONY: demo methods install model report docs check test test-slow slurm-plugin lint lock clean

demo: $(VENV)/demo.installed
	$(SNAKEMAKE)
	@echo "Open results/summary.html; its tables and figures are in results/ too."

# Every method of Table V at a small size, on the demo's clips.
methods: $(VENV)/demo.installed
	$(SNAKEMAKE) methods --configfile config/methods.yaml

# Only the environment.
install: $(VENV)/demo.installed

# Models of real micro-expressions for your own clips, in models/, each with its card. ROOT= is a folder with the public flow images;
# without it, they are downloaded. By default, `merba predict` uses public_flow.safetensors, the best method in docs/results.md.
FIT = $(BIN)/merba fit --config config/public_flow.yaml $(if $(ROOT),--root "$(ROOT)")
model: $(VENV)/demo.installed
	$(FIT) --experiment kernel --error kernel --out models/public_flow.safetensors
	$(FIT) --experiment merba_single_window --error merba_single_window --out models/public_flow_merba.safetensors

report: $(VENV)/demo.installed
	$(SNAKEMAKE)
	$(BIN)/snakemake --report results/report.html

# The documentation site, in site/.
docs: $(VENV)/test.installed
	$(BIN)/mkdocs build --strict

check: $(VENV)/test.installed lint
	$(BIN)/pytest -q -m "not long and not slow"

test: $(VENV)/test.installed lint
	$(BIN)/pytest -q -m "not slow" --durations=15

# Tests that take minutes each: the whole demo with its controls, the report in a browser, a run killed ten times, a run on Slurm. If
# the browser or Slurm is not installed, its tests are skipped and listed.
test-slow: $(VENV)/test.installed
	$(BIN)/pytest -q -m slow -rs --durations=15

# For clusters (docs/cluster.md). It is not in the demo's environment: if Slurm's programs are installed but its daemon isn't running,
# the plugin slows every start of Snakemake.
slurm-plugin: $(VENV)/demo.installed
	$(BIN)/pip install -q --no-deps -r envs/slurm.txt

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/ty check --python $(VENV)
	$(BIN)/snakefmt --check Snakefile rules workflow/Snakefile
	$(BIN)/snakemake --lint

$(VENV)/demo.installed: envs/torch.txt envs/cpu.txt pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else \
		"merba needs Python 3.11 to 3.14: rm -r $(VENV), then make PYTHON=/path/to/python3.13; README.md says how uv installs one")'
	$(BIN)/pip install -q -r envs/torch.txt
	$(BIN)/pip install -q --no-deps -r envs/cpu.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/test.installed: $(VENV)/demo.installed envs/dev.txt
	$(BIN)/pip install -q --no-deps -r envs/dev.txt
	# Only its Python part: one test compares with its reference scan; without it, this test is skipped.
	-MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(BIN)/pip install -q --no-build-isolation --no-deps mamba-ssm==2.3.2.post1
	touch $@

# New exact versions from requirements.in and dev.in, in a separate environment with the oldest Python, so that they fit every Python.
lock:
	envs/lock.sh python3.11

clean:
	rm -rf $(VENV) .snakemake
