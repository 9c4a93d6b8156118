# pgtenant: every command that a developer needs. `make help` lists them.

CARGO ?= cargo
ARGS ?=

.PHONY: help run build kubernetes test test-all drill bench lint generate clean

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Start everything on this machine (ARGS="--dir DIR --listen HOST:PORT")
	@exec target/debug/pgtenant dev $(ARGS)

build: ## Install what is missing and build the binary
	@.ci/require-rust
	@.ci/postgres
	@$(CARGO) build -p pgtenant

kubernetes: ## Build what `pgtenant dev --kubernetes` needs
	@.ci/kubernetes-binaries

test: ## Install what the tests need, and run all of them
	@.ci/require-rust
	@.ci/postgres
	@.ci/postgres-versions
	@.ci/postgres-tools
	@.ci/kubernetes-binaries
	@.ci/packages python3-venv
	@.ci/test

test-all: test drill ## The same, which leaves out nothing, and drills one at a time for figures on a quiet machine

drill: ## Kill the primary of a lab of every kind, and measure what a tenant sees
	@.ci/require-rust
	@.ci/postgres
	@.ci/drill

bench: ## Measure against the same SQL by hand (takes some minutes)
	@.ci/require-rust
	@.ci/postgres
	@.ci/kubernetes-binaries
	@$(CARGO) build --release -p pgtenant -p pgtenant-bench
	@target/release/pgtenant-bench $(ARGS)

lint: ## Formatting, clippy, licences and advisories, generated files, the OpenAPI document, charts
	@.ci/lint

generate: ## Write the generated files again
	@$(CARGO) run -q -p xtask -- generate

clean: ## Remove what was built; data folders stay
	@$(CARGO) clean
