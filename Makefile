# csnap: what a person types. `make` alone shows this list.

PREFIX  ?= /usr/local
MINUTES ?= 10
SUITE   ?= all
CARGO   ?= cargo

.PHONY: help setup build demo test unit e2e bench bench-doc soak lint install clean-work

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  variables:        PREFIX=$(PREFIX)  MINUTES=$(MINUTES)  BENCH_QUICK=1  SUITE=all|native|engine"

setup: ## install what a fresh Debian 12 with cargo lacks
	@scripts/setup

build: ## csnapd and csnapctl, optimised
	$(CARGO) build --release --bins -p ublk-target -p ctl

demo: setup build ## the main job, shown on this machine in under 3 minutes
	@scripts/demo

test: setup ## everything, in order, with a summary
	@scripts/test

unit: ## unit and model tests only
	$(CARGO) test --workspace

e2e: setup ## the real programs judged by fio, qemu and libnbd
	$(CARGO) build --bins -p ublk-target -p ctl
	$(CARGO) test -p csnap-tests --features e2e --test e2e -- --test-threads=2

bench: setup build ## side by side with qemu, and the engine alone; rows in target/bench/native.json
	$(CARGO) run --release -p csnap-tests --bin bench -- --suite $(SUITE)

bench-doc: ## put the latest rows into docs/performance.md
	$(CARGO) run --release -p csnap-tests --bin bench -- --doc docs/performance.md

soak: setup ## kills, fio and models with new seeds for MINUTES
	@scripts/soak $(MINUTES)

lint: ## formatting, clippy, licences and dependencies
	@scripts/lint

install: build ## into PREFIX
	install -D -m 0755 target/release/csnapd $(DESTDIR)$(PREFIX)/sbin/csnapd
	install -D -m 0755 target/release/csnapctl $(DESTDIR)$(PREFIX)/bin/csnapctl
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/release/csnapctl completion bash \
		> $(DESTDIR)$(PREFIX)/share/bash-completion/completions/csnapctl

clean-work: ## remove what tests, demo and benchmarks left (not the build)
	rm -rf target/e2e target/demo target/bench/work target/test
