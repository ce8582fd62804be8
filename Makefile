# The commands of this project. `make run` and `make check` are all that is needed to begin.

export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup run check lint test test-unit test-quick test-it test-sdk demo bench soak

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 18

setup: ## Install what the server needs beside its binaries, into .venv
	@scripts/setup

run: setup ## Build the server and serve; settings come from the environment
	@cargo build --release --bin assistd
	@scripts/build_sandbox --release
	@exec "$$(scripts/target_folder)/release/assistd"

check: lint test-unit ## Check formatting and lints, and run all unit tests; needs no network after setup

lint: setup ## Check formatting and lints
	cargo fmt --all --check
	scripts/cargo_workspace clippy --all-targets --quiet -- -D warnings

test: ## Run every test, about half an hour
	@scripts/test

test-unit: setup ## Run the unit tests of all crates
	@scripts/with_database scripts/cargo_workspace test --lib --bins

test-quick: test-unit ## Run the unit tests and the basic integration tests
	cargo test --test it -- architecture:: routes:: isolation:: running::

test-it: setup ## Run the integration tests whose name contains NAME, such as NAME=webhooks; all without it
	cargo test --test it -- $(NAME)

test-sdk: setup ## Run the SDK suites, or those in SUITE, such as SUITE=wire
	@tests/sdk/setup.sh
	@cargo build --bin assistd
	@scripts/build_sandbox
	@tests/sdk/run.sh $(SUITE)

demo: setup ## Show what the server does, with the official SDK; OPENAI_BASE_URL names another server
	@scripts/demo

bench: setup ## Measure the server; ARGS=--quick measures less, in six minutes
	@bench/run $(ARGS)

soak: setup ## Prove under ten minutes of load that nothing acknowledged is lost
	@bench/soak
