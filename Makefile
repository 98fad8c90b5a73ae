# csnap: what a person types. `make` alone shows this list.

PREFIX  ?= /usr/local
MINUTES ?= 10
SUITE   ?= all
KERNEL  ?= 7.2
CARGO   ?= cargo

.PHONY: help setup build demo test unit e2e bench bench-doc bench-images soak fuzz coverage guest guest-setup guest-test lint install uninstall clean-work

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo "  variables:        PREFIX=$(PREFIX)  MINUTES=$(MINUTES)  BENCH_QUICK=1  SUITE=all|native|engine  GUEST=1  KERNEL=$(KERNEL)"

setup: ## install what a fresh Debian 12 with cargo lacks
	@scripts/setup

build: ## csnapd, csnapctl and imagegen, optimised
	$(CARGO) build --release --bins -p ublk-target -p ctl -p imagegen

demo: setup build ## the main job, shown in under 3 minutes; GUEST=1: on /dev/ublkbN in the virtual machine
ifdef GUEST
	@scripts/demo-guest $(KERNEL)
else
	@scripts/demo
endif

test: setup ## everything, in order, with a summary
	@scripts/test

unit: ## unit and model tests only
	$(CARGO) test --workspace

e2e: setup ## the real programs judged by fio, qemu and libnbd
	@scripts/judges
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace --test e2e -- --test-threads=2

# In the guest the suite is another, and needs the guest's own command.
bench: setup build ## side by side with qemu, and the engine alone (GUEST=1: with dm-snapshot, on ublk)
ifdef GUEST
	$(CARGO) build --release -p csnap-tests --bin bench --bin guest
	target/release/guest prepare
	target/release/bench --suite guest
else
	$(CARGO) run --release -p csnap-tests --bin bench -- --suite $(SUITE)
endif

bench-doc: ## put the latest rows into docs/performance.md
	$(CARGO) run --release -p csnap-tests --bin bench -- --doc docs/performance.md

bench-images: ## images of file trees, of disks and of volumes, beside mkfs.xfs, mkfs.erofs, qemu-img and tar (as root)
	@scripts/judges
	$(CARGO) build --release --workspace --bins
	$(CARGO) bench -p imagegen --bench images

soak: setup ## kills, fio and models with new seeds for MINUTES
	@scripts/soak $(MINUTES)

coverage: ## how much of the engine its tests reach, by line and by branch (see docs/testing.md)
	@scripts/coverage

fuzz: setup ## hostile bytes at every decoder for MINUTES (see docs/testing.md)
	@scripts/fuzz all $$(($(MINUTES) * 60 / 8))

guest: build ## a shell in a virtual machine with ublk, csnap installed (KERNEL=7.2|6.12)
	@scripts/guest shell --kernel $(KERNEL)

guest-setup: ## fetch and build what the virtual machine needs (as root, once)
	@scripts/guest-setup

guest-test: ## csnap on block devices in the virtual machine, on both kernels, and its own tests
	@scripts/guest-setup
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace --test guest_harness -- --test-threads=1
	$(CARGO) test --workspace --test guest_boot
	$(CARGO) test --workspace --test guest_units
	$(CARGO) test --workspace --test guest_cuts -- --test-threads=1 --nocapture
	@scripts/guest-tests

lint: ## formatting, clippy, licences and dependencies
	@scripts/lint

install: build ## programs, units, udev rules and manual into PREFIX (DESTDIR honoured)
	install -D -m 0755 target/release/csnapd $(DESTDIR)$(PREFIX)/sbin/csnapd
	install -D -m 0755 target/release/csnapctl $(DESTDIR)$(PREFIX)/bin/csnapctl
	install -D -m 0755 target/release/imagegen $(DESTDIR)$(PREFIX)/bin/imagegen
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/release/csnapctl completion bash \
		> $(DESTDIR)$(PREFIX)/share/bash-completion/completions/csnapctl
	scripts/install-system install "$(DESTDIR)" "$(PREFIX)"

uninstall: ## remove what install put there; stores and state stay
	scripts/install-system uninstall "$(DESTDIR)" "$(PREFIX)"
	rm -f $(DESTDIR)$(PREFIX)/sbin/csnapd $(DESTDIR)$(PREFIX)/bin/csnapctl \
		$(DESTDIR)$(PREFIX)/bin/imagegen \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/csnapctl

clean-work: ## remove what tests, demo and benchmarks left (not the build)
	rm -rf target/e2e target/demo target/bench/work target/test
