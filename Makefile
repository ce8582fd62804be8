# The commands of this project. `make run` and `make test` are all that is needed to begin.

export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup run test demo bench soak lint

help: ## List these commands
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 12

setup: ## Install what the server needs beside its binaries, into .venv
	@scripts/setup

run: setup ## Build the server and serve; settings come from the environment
	@cargo build --release --bin assistd
	@scripts/build_sandbox --release
	@exec "$$(scripts/target_folder)/release/assistd"

test: ## Run every test
	@scripts/test

demo: setup ## Show what the server does, with the official SDK; OPENAI_BASE_URL names another server
	@scripts/demo

bench: setup ## Measure the server
	@bench/run

soak: setup ## Prove under ten minutes of load that nothing acknowledged is lost
	@bench/soak

lint: setup ## Check formatting and lints
	cargo fmt --all --check
	scripts/cargo_workspace clippy --all-targets --quiet -- -D warnings
