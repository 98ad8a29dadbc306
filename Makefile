# The only commands; .ci/run calls the same ones.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo test lint bench run clean
.PHONY: image crds

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

help:
	@echo 'make demo   a real containerd pulls a real image through Larder (root; IMAGE=docker.io/library/alpine:3.20)'
	@echo 'make test   every test; the end-to-end ones as root'
	@echo 'make lint   formatting, clippy, licences and advisories'
	@echo 'make bench  a warm cache beside nginx, and the controller with 5,000 nodes, on this machine'
	@echo 'make image  the image with every program, as an OCI archive for `ctr images import`; no engine needed'
	@echo 'make crds   the chart'"'"'s custom resource definitions, from the controller'
	@echo 'make run    larder-agent with its defaults, below ./larder-data'
	@echo 'make clean  removes what was built, and ./larder-data'

demo:
	@.ci/packages gcc libc6-dev containerd runc docker-registry
	$(CARGO) build --release --locked --bins -p larder-agent -p larder-installer -p larder-tests
	@IMAGE='$(IMAGE)' $(TARGET)/release/larder-demo

# Cargo builds a package's programs for that package's own tests alone, so they are built first.
test:
	@.ci/packages gcc libc6-dev containerd runc docker-registry strace etcd-server skopeo binutils ca-certificates
	@.ci/containerd-2
	@.ci/kubernetes
	@.ci/helm
	@.ci/distribution-3
	$(CARGO) build --workspace --bins --locked
	$(CARGO) test --workspace --locked

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@.ci/deny
	@.ci/helm
	@.ci/chart

bench:
	@.ci/packages gcc libc6-dev docker-registry nginx-light wrk etcd-server
	@.ci/kubernetes
	@.ci/helm
	$(CARGO) build --release --locked --bins -p larder-agent -p larder-installer -p larder-controller -p larder-tests
	@$(TARGET)/release/larder-bench

image:
	@.ci/packages gcc libc6-dev binutils ca-certificates
	$(CARGO) build --release --locked --workspace --exclude larder-tests --bins
	@.ci/image $(TARGET)/release $(TARGET)/larder-image.tar

crds:
	$(CARGO) run --quiet --locked -p larder-controller -- crds | .ci/crds charts/larder/crds

run:
	$(CARGO) run --release --locked -p larder-agent

clean:
	$(CARGO) clean
	rm -rf larder-data
