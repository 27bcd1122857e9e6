# Purser. `make` lists what can be made.
#
#   PURSER_CACHE_DIR   test bed binaries, Python tools       [~/.cache/purser]
#   CARGO_TARGET_DIR   one warm build folder for everything  [target]
#   PURSER_DATA_DIR    traces and bills for the data tests   [unset: those tests are skipped]
#   DEMO_DIR           state of the demo                     [$PURSER_CACHE_DIR/demo]
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-down check test test-fast bench bench-packing bench-training bench-fleet generate verify cluster-up cluster-down image build machine testbed testbed-all python-tools

export PURSER_CACHE_DIR ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/purser
DEMO_DIR ?= $(PURSER_CACHE_DIR)/demo
CLUSTER_DIR ?= $(PURSER_CACHE_DIR)/cluster
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
PURSER := $(TARGET)/release/purser

# aws-sdk-ec2 alone takes 7.5 GB of memory to compile; a second compiler beside it needs about 2.
MEMORY_GB := $(shell awk '/MemAvailable/ {print int($$2 / 1048576)}' /proc/meminfo 2>/dev/null || echo 16)
CORES := $(shell nproc 2>/dev/null || echo 2)
export CARGO_BUILD_JOBS ?= $(shell jobs=$$(( ($(MEMORY_GB) - 7) / 2 )); (( jobs < 1 )) && jobs=1; (( jobs > $(CORES) )) && jobs=$(CORES); echo $$jobs)

help: ## List what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build testbed ## A local cluster, a simulated AWS market, five jobs, and what they cost
	$(PURSER) demo up --dir $(DEMO_DIR)

demo-down: ## End the demo and remove all it made
	$(PURSER) demo down --dir $(DEMO_DIR)

check: machine ## Compile everything and lint it
	cargo check --release --all-targets
	cargo clippy --release -- -D warnings

test: machine test-fast build testbed-all python-tools ## Everything: pure half, command line, simulation, real Kubernetes
	cargo test --release --no-fail-fast --lib --bins --test it --test wire -- --show-output
	@# One after the other: each starts a Kubernetes, and runs its market hundreds of times faster than the clock.
	cargo test --release --no-fail-fast --test cluster --test demo -- --show-output --test-threads 1

test-fast: ## The half that decides; seconds
	cargo test --lib --no-default-features

bench: build ## How long the planner takes for a thousand jobs
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for number in $$(seq 1000); do \
	  printf -- '---\napiVersion: purser.dev/v1alpha1\nkind: TrainingJob\nmetadata: {name: job-%s, namespace: lab}\nspec:\n  experiment: bench\n  expectedDuration: 4h\n  requirements: {gpus: 1}\n  template: {spec: {containers: [{name: train, image: trainer}]}}\n' "$$number"; \
	done >"$$folder/jobs.yaml"; \
	time $(PURSER) plan -f "$$folder/jobs.yaml" --output csv >/dev/null

bench-fleet: build testbed ## Fleets for sets A and C of the packing benchmark on a real scheduler; needs PURSER_DATA_DIR
	cargo test --release --test cluster -- --ignored --show-output --test-threads 1 fleet_bench

bench-packing: build ## Fleets for real pods on real prices, beside Karpenter's; needs PURSER_DATA_DIR
	@: $${PURSER_DATA_DIR:?set it to the folder that holds traces/ and fixtures/}
	@run() { $(PURSER) simulate packing --pods "$$PURSER_DATA_DIR/traces/jobs/alibaba2023_pods.parquet" \
	  --catalog "$$PURSER_DATA_DIR/fixtures/karpenter/instance_types_us_east_1_on_demand.json.zst" --set A,B,C,D "$$@"; echo; }; \
	run --policy purser,dual-greedy,karpenter; \
	run --policy purser --node-charge 0.02,0.05,0.10,0.20

bench-training: build ## Deadline policies on real spot markets, beside the optimum: docs/reference/training.md; needs PURSER_DATA_DIR
	@: $${PURSER_DATA_DIR:?set it to the folder that holds traces/}
	tests/bench/training.sh $(PURSER) "$$PURSER_DATA_DIR/traces/spot" docs/reference

generate: build ## Write manifests/crds and docs/reference from the code
	$(PURSER) generate

verify: check test ## What a change must pass before it is merged

build: machine ## The release binary
	cargo build --release

testbed: ## The binaries of the local Kubernetes, built once from Go modules
	tests/cluster/build.sh >/dev/null

# Real nodes need root, so their binaries are built for root only.
testbed-all:
	tests/cluster/build.sh $(if $(filter 0,$(shell id -u)),all,) >/dev/null

python-tools: ## moto, the referee for the AWS wire format, in a Python environment of its own
	@sh tests/wire/moto.sh >/dev/null || echo "note: no moto; the tests that compare with it say so and are skipped"

cluster-up: build testbed ## A local Kubernetes for development; prints its kubeconfig
	$(PURSER) cluster up --dir $(CLUSTER_DIR)

cluster-down: ## End it
	$(PURSER) cluster down --dir $(CLUSTER_DIR)

image: build ## An image archive of the binary, where a container engine is at hand
	@engine=$$(command -v podman || command -v docker || true); \
	if [ -z "$$engine" ]; then \
	  echo "no podman or docker here. The image is one binary on any glibc base: copy $(PURSER) to /usr/local/bin/purser and set it as entrypoint."; exit 1; \
	fi; \
	printf 'FROM debian:12-slim\nCOPY purser /usr/local/bin/purser\nENTRYPOINT ["/usr/local/bin/purser"]\n' | \
	  "$$engine" build -t purser:dev -f - $(TARGET)/release

machine: # What a build needs, checked before it starts
	@command -v cargo >/dev/null || { echo "error: no cargo on the PATH"; echo "hint: install Rust 1.95 or later from https://rustup.rs"; exit 1; }
	@need=1.95.0; have=$$(rustc --version | awk '{print $$2}'); \
	if [ "$$(printf '%s\n' $$need $$have | sort -V | head -1)" != $$need ]; then echo "error: rustc $$have is too old"; echo "hint: rustup update (Rust $$need or later)"; exit 1; fi
	@command -v cc >/dev/null || { echo "error: no C compiler on the PATH"; echo "hint: apt-get install build-essential"; exit 1; }
	@command -v go >/dev/null || echo "note: no go on the PATH; the local Kubernetes cannot be built (install Go 1.26 or later)"
	@if (( $(MEMORY_GB) < 10 )); then echo "note: $(MEMORY_GB) GB of memory are free and the AWS SDK takes about 8 to compile; building with $(CARGO_BUILD_JOBS) job(s)"; fi
	@free_gb=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}'); \
	if (( free_gb < 12 )); then echo "error: $$free_gb GB free here; a build takes about 8 and the test bed 4 more"; echo "hint: set CARGO_TARGET_DIR and PURSER_CACHE_DIR to a larger disk"; exit 1; fi
	@if [ ! -x $(PURSER) ]; then echo "first build: about 700 crates, 20 minutes on 2 cores; later ones take a minute or two"; fi
