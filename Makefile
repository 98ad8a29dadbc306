# The only commands; .ci/run calls the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo test lint bench run clean

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

help:
	@echo 'make demo   a real containerd pulls a real image through Larder (root; IMAGE=docker.io/library/alpine:3.20)'
	@echo 'make test   every test; the end-to-end ones as root'
	@echo 'make lint   formatting, clippy, licences and advisories'
	@echo 'make bench  a warm cache beside nginx on this machine'
	@echo 'make run    larder-agent with its defaults, below ./larder-data'
	@echo 'make clean  removes what was built, and ./larder-data'

demo:
	@.ci/packages gcc libc6-dev containerd runc docker-registry
	$(CARGO) build --release --locked --bins -p larder-agent -p larder-installer -p larder-tests
	@IMAGE='$(IMAGE)' $(TARGET)/release/larder-demo

# Cargo builds a package's programs for that package's own tests alone, so they are built first.
test:
	@.ci/packages gcc libc6-dev containerd runc docker-registry strace
	@.ci/containerd-2
	$(CARGO) build --workspace --bins --locked
	$(CARGO) test --workspace --locked

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@.ci/deny

bench:
	@.ci/packages gcc libc6-dev docker-registry nginx-light wrk
	$(CARGO) build --release --locked --bins -p larder-agent -p larder-installer -p larder-tests
	@$(TARGET)/release/larder-bench

run:
	$(CARGO) run --release --locked -p larder-agent

clean:
	$(CARGO) clean
	rm -rf larder-data
