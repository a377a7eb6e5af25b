# `make` alone prints what there is. Everything runs in .venv; nothing needs to be activated.
VENV := .venv
BIN := $(VENV)/bin
PYTHON = $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
# With it, whatever has no bytecode yet is compiled anew at every start.
unexport PYTHONDONTWRITEBYTECODE
# glibc: huge pages, and freed memory kept. A fifth of a training step on a CPU was page faults (bench/NOTES.md).
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184

.PHONY: help setup repro test check bench
help:
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

setup: $(VENV)/.installed ## makes .venv from requirements.lock, once
$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "showwork needs Python 3.11: neither python3.11 nor python3 is one." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

repro: setup ## runs what changed of the pipeline; ends with the table of arms and the report's path
	@$(BIN)/showwork params > /dev/null  # what is wrong with params.yaml, in clearer words than DVC's
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@sed '/^| arm /,/^$$/!d; /^$$/q' results/report.md; echo "Report: results/report.md"

test: setup ## runs the fast tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: setup ## looks at style and types, and says whether the results are those of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --python $(VENV)
	@$(BIN)/dvc status --quiet || echo "Not up to date: \`make repro\` runs what changed, \`dvc status\` says what that is."

bench: setup ## measures us beside stock Tunix, TRL and the machine: make bench ARGS="--only sft --no-trl"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench.speed $(ARGS)
