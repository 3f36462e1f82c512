# Two commands for newcomers: `make demo` builds and boots a Slurm node, `make test` runs every check.
# Both set up what they need first, and can be run again from any state.

SHELL := /bin/sh
UV_VERSION := 0.13.8
UV := .venv/bin/uv
SYNC := UV_SYSTEM_CERTS=1 UV_LINK_MODE=hardlink $(UV) sync --quiet --frozen --inexact

.PHONY: help demo test setup setup-test bench fresh aws-bed clean

help:
	@echo "make demo    set up, then build and check examples/slurm-node"
	@echo "make test    set up, then run every check (lint, types, tests, docs)"
	@echo "make setup   only set up: .venv and the Debian packages in debian-packages.txt"
	@echo "make bench   the figures beside their peers; takes about two hours"
	@echo "make fresh   prove both commands in clean Debian 12 and 13 roots; takes over two hours"
	@echo "make aws-bed a stand-in for AWS on 127.0.0.1, to try things without an account"
	@echo "make clean   remove .venv and caches (layers and images stay; see \`ingot gc\`)"

demo: setup
	.venv/bin/ingot build --check -C examples/slurm-node
	@echo
	@echo "Built, booted and checked. Next:"
	@echo "  .venv/bin/ingot ls -C examples/slurm-node"
	@echo "  .venv/bin/ingot export slurm-node --format qcow2 -o slurm-node.qcow2 -C examples/slurm-node"

test: setup-test
	.venv/bin/nox

bench: setup-test
	.venv/bin/nox -s bench

fresh: setup-test
	.venv/bin/nox -s fresh

# PORT, PROFILE (fast, realistic) and STATE (a roomy folder for disks) may be given: make aws-bed PROFILE=realistic
aws-bed: setup-test
	@PYTHONPATH=src:. .venv/bin/python -m tests.aws_bed --port $(or $(PORT),5599) --profile $(or $(PROFILE),fast) \
		--state $(or $(STATE),/var/tmp)

setup:
	@sh scripts/setup.sh $(UV_VERSION)
	@$(SYNC) --no-default-groups

setup-test:
	@sh scripts/setup.sh $(UV_VERSION)
	@$(SYNC) --all-groups

clean:
	rm -rf .venv .cache .nox .mypy_cache .ruff_cache .hypothesis build dist
