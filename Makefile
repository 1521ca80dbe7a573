# `make help` lists the targets. CLUSTER_NAME names the cluster of the targets that need one (default: dev).
SHELL := bash
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
# Where cargo puts things, also when CARGO_TARGET_DIR says so.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Linked statically, so that the same binary runs in every image, whatever its C library.
BINARY := $(TARGET)/$(HOST)/release/scriptscope
export CLUSTER_NAME ?= dev

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: demo
demo: ## Everything from nothing: cluster, chart, a sample script, three calls, the figures
	@scripts/demo

.PHONY: test
test: deps-test ui ## All tests, with those on a real cluster (its own, removed at the end)
	@tests/run all

.PHONY: deps-test
deps-test: ## Install Postgres, Prometheus, nginx, an S3 server, pandas, DuckDB, Node and Chromium for the tests
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; }
	@command -v promtool >/dev/null || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus; }
	@{ python3 -c 'import yaml' || /usr/bin/python3 -c 'import yaml'; } 2>/dev/null || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-yaml; }
	@command -v versitygw >/dev/null || { echo "building versitygw, an S3 server for the tests"; \
	  GOBIN=/usr/local/bin go install -ldflags='-s -w' github.com/versity/versitygw/cmd/versitygw@v1.8.0; }
	@command -v nginx >/dev/null || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light; }
	@python3 -c 'import pip, venv' 2>/dev/null || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip python3-venv; }
	@tests/exports/read_back install
	@command -v npm >/dev/null || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm; }
	@node -e 'process.exit(+process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null || npm install --silent --global node@24
	@command -v chromium >/dev/null || { apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }
	@$(MAKE) --no-print-directory tests/ui/node_modules/.package-lock.json

.PHONY: check
check: deps-test ui ## The fast loop: format, lint, tests that need no cluster
	@tests/run fast

.PHONY: e2e
e2e: ## The end-to-end tests alone; KEEP=1 keeps the cluster
	@tests/run e2e

.PHONY: soak
soak: ## Faults with random seeds for SOAK_MINUTES (default 30), every line compared with the store
	@SOAK_MINUTES=$(or $(SOAK_MINUTES),30) cargo test --locked --quiet --test faults

.PHONY: fuzz
fuzz: ## Fuzz the parsers for FUZZ_SECONDS (default 600) each (needs nightly Rust and cargo-fuzz)
	@fuzz/run

.PHONY: bench
bench: ## Benchmarks of whole paths; NAME=... for one, SCALE=small for a quick look
	@RUSTFLAGS="-C target-feature=+crt-static" cargo bench --locked --target $(HOST) --bench pipeline -- $(NAME)

.PHONY: bench-ui
bench-ui: deps-test ui ## The dashboard in Chromium with SIZE runs and lines (default 10000000; 100000 for a quick look)
	@RUSTFLAGS="-C target-feature=+crt-static" BENCH_CARGO="bench --locked --target $(HOST)" SIZE=$(or $(SIZE),10000000) \
	  npm --prefix tests/ui run --silent bench

.PHONY: fmt
fmt: ui/node_modules/.package-lock.json ## Format the code
	cargo fmt
	@cd ui && npm run --silent format

.PHONY: generate
generate: ## Write the CRDs and the table of the chart's values anew after a change in src/api or values.yaml
	cargo run --quiet --locked -- crd --dir crds
	cargo run --quiet --locked -- crd --dir charts/scriptscope/files/crds
	@scripts/chart-values

.PHONY: ui
ui: ui/dist/index.html ## The dashboard, into ui/dist, which the binary embeds (skipped while nothing changed)

# npm writes this file when it is done.
%/node_modules/.package-lock.json: %/package.json %/package-lock.json %/.npmrc
	@cd $* && npm ci --silent && touch node_modules/.package-lock.json

ui/dist/index.html: ui/node_modules/.package-lock.json ui/index.html ui/vite.config.ts ui/tsconfig.json \
		$(shell find ui/src ui/public ui/scripts -type f)
	@cd ui && npm run --silent build

.PHONY: screenshots
screenshots: deps-test ui ## Pictures of each view of the dashboard, into target/screenshots
	@cd tests/ui && npm run --silent screenshots

.PHONY: binary
binary: ui ## The release binary
	@RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(HOST) --bin scriptscope

.PHONY: cluster-deps cluster-build cluster-up cluster-down image install
cluster-deps: ## Install what the cluster needs from Debian's packages
	@tests/cluster/cluster deps

cluster-build: cluster-deps ## Build the cluster's programs and base images (once, about 14 minutes)
	@tests/cluster/cluster build
	@tests/cluster/cluster images

cluster-up: cluster-build ## Start the one-node cluster with gVisor
	@tests/cluster/cluster up

cluster-down: ## Remove it, with all it left
	@tests/cluster/cluster down

image: binary cluster-build ## The container image with the binary, loaded into the cluster
	@scripts/load-image $(BINARY)

install: image ## Install the chart into the cluster
	@scripts/install

.PHONY: deny
deny: ## Check licences, sources and advisories of the dependencies (needs cargo-deny)
	cargo deny check
