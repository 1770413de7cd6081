# Each target does its own set-up: a .venv with the versions of constraints.txt, then its work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?=
INPUT ?=
OUT ?= demo

.PHONY: help demo test check slurm chaos faults bench clean

help:
	@echo "make demo [DATA=folder [INPUT=left|right]]  pack, train on 2 workers, translate, and show a gallery"
	@echo "make test                the whole suite;  make check  ruff and mypy;  make bench  ratios of speed"
	@echo "make slurm               tests on a real Slurm cluster in network namespaces (needs root and Debian)"
	@echo "make chaos               a thousand kills, then the same weights as without"
	@echo "make faults              ten thousand damaged shards, stores and caches: none unseen"

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python -m launch.demo --out '$(OUT)' $(if $(DATA),--data '$(DATA)') $(if $(INPUT),--input '$(INPUT)')

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slurm: $(READY)
	P2P_SLURM=1 $(BIN)/python -m pytest -q -rs -n 3 --dist worksteal tests/slurm

chaos: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --kills 1000

faults: $(READY)
	$(BIN)/python -m tests.faults --count 10000

bench: $(READY)
	$(BIN)/python -m tests.bench.step
	$(BIN)/python -m tests.bench.load
	$(BIN)/python -m tests.bench.pack
	$(BIN)/python -m tests.bench.shuffle
	$(BIN)/python -m tests.bench.locality
	$(BIN)/python -m tests.bench.resume
	$(BIN)/python -m tests.bench.soak
	$(BIN)/python -m tests.bench.survive
	$(BIN)/python -m tests.bench.pool

clean:
	rm -rf $(VENV) demo *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
