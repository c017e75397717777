# Every target works as the first command on a fresh clone.
PYTHON := .venv/bin/python
HOST_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
ARCH ?= $(HOST_ARCH)
PYTEST = $(PYTHON) -m pytest $(ARGS)

.PHONY: help setup iso lock pin demo test unit vm install-test installers soak lint format bench bench-check clean

help:
	@echo "make setup            system packages (Debian, Ubuntu) and .venv"
	@echo "make iso [ARCH=arm64] the guest image in build/; LOCKED=1 for a release: the locked packages or an error"
	@echo "make lock             the locks of the image, renewed"
	@echo "make pin              a release: the ISOs of build/ become the pins in launcher/release.toml"
	@echo "make demo             from nothing to a container, and away again"
	@echo "make test             everything: linters, units, packages, machines on real QEMU"
	@echo "make unit             what needs no machine, in seconds"
	@echo "make vm               the machines only; ARGS='-k name' for some of them"
	@echo "make installers       what installs wherry on each system, in dist/, with SHA256SUMS and an SBOM; FULL=1 with the ISOs in them too"
	@echo "make soak             machines and image builds with large counts; hours"
	@echo "make lint             ruff, mypy, shellcheck, codespell"
	@echo "make bench            what is claimed about speed and cost, beside its floor or peer; figures and plots in bench/; ARGS=--quick"
	@echo "make bench-check      the same into build/bench/; fails where a ratio got worse than in bench/results.json"

setup:
	@.ci/setup

iso: setup
	$(PYTHON) iso/build.py --arch $(ARCH) $(if $(filter-out 0,$(LOCKED)),--locked)

lock: setup
	$(PYTHON) iso/build.py --lock-update

pin: setup
	$(PYTHON) .ci/pin.py

demo: ARCH := $(HOST_ARCH)
demo: iso
	@.ci/demo

# It may take 90 minutes at most: no machine or package is begun in the last 15 of them, which is said of each that is left out.
test: export WHERRY_TEST_UNTIL := $(shell expr $$(date +%s) + 4500)
test: setup
	$(PYTHON) iso/build.py --arch amd64
	$(PYTHON) iso/build.py --arch arm64 --fast
	$(PYTEST) -n 2 --dist loadfile --durations=40

unit: setup
	$(PYTEST) -m "not vm and not install"

install-test: setup
	$(PYTEST) -m install

vm: iso
	$(PYTEST) -m vm

# A release gives the Pythons of its own: ARGS='--python windows-amd64=FILE …', pinned in inputs.toml. FULL=1: full editions too.
installers: setup
	$(if $(filter-out 0,$(FULL)),$(PYTHON) iso/build.py --arch amd64)
	$(if $(filter-out 0,$(FULL)),$(PYTHON) iso/build.py --arch arm64)
	$(PYTHON) -m tests.install.everything $(if $(filter-out 0,$(FULL)),--full) $(ARGS)

soak: setup
	$(PYTHON) iso/build.py --arch amd64
	$(PYTHON) iso/build.py --arch arm64
	WHERRY_SOAK=1 $(PYTEST) -m "vm or install" -rP --durations=0

lint: setup
	$(PYTEST) tests/test_linters.py tests/test_layers.py

format: setup
	$(PYTHON) -m ruff format launcher tests
	$(PYTHON) -m ruff check --fix launcher iso tests

bench: iso
	$(PYTHON) -m pip install -q -e '.[bench]'
	PYTHONPATH=iso $(PYTHON) -m tests.bench $(ARGS)

bench-check: iso
	$(PYTHON) -m pip install -q -e '.[bench]'
	PYTHONPATH=iso $(PYTHON) -m tests.bench --check bench/results.json $(ARGS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
