# `make help` lists what there is. Long output goes to the terminal as it is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The system's OpenSSL where its headers are; else one is built along, which takes minutes.
export TAILWATER_FEATURES := $(shell pkg-config --exists 'openssl >= 1.1.1' 2>/dev/null || echo vendored-openssl)

# The same for lints and tests: libraries in C are compiled once then (docs/decisions/0032).
PROFILE := tested

.PHONY: help
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

.PHONY: build
build: ## the program: target/release/tailwater
	cargo build --release --features "$(TAILWATER_FEATURES)"

.PHONY: demo
demo: build ## an order service, its outbox, and its events as they are published
	@scripts/demo

.PHONY: test
test: ## all tests against real servers, long proofs at a tenth of their size
	@scripts/prepare
	@scripts/test $(PROFILE) 0.1

.PHONY: proof
proof: ## the same, long proofs at their full size
	@scripts/prepare
	@scripts/test $(PROFILE) 1

.PHONY: check
check: ## format, lints, documentation
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --profile $(PROFILE) --all-targets --features "$(TAILWATER_FEATURES)" -- -D warnings
	cargo clippy --profile $(PROFILE) --no-default-features --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --profile $(PROFILE) --no-deps --features "$(TAILWATER_FEATURES)" --document-private-items
	@scripts/check-unit
	@for script in scripts/* .ci/run; do bash -n $$script || exit 1; done

.PHONY: fuzz
fuzz: ## frame reader, decoder and writer of values, a minute each
	@scripts/fuzz 60

.PHONY: bench
bench: build ## the figures of docs/benchmarks.md
	@scripts/prepare
	@scripts/bench
