# `make demo` shows Skep at work; `make test` is what CI runs. Both install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
DEBUG := target/$(HOST)/debug
RELEASE := target/$(HOST)/release
# For each of six readers.
FUZZ_SECONDS ?= 8

.PHONY: help build demo test check fix bench fuzz advisories

help:
	@echo 'make demo     build Skep and walk through a service from creation to recovery'
	echo 'make build    the release binary, $(RELEASE)/skep'
	echo 'make test     every test (root is required)'
	echo 'make check    formatting, lints, licences, floors; changes nothing'
	echo 'make fix      what check can mend by itself'
	echo 'make fuzz     mangled Dockerfiles, archives and manifests for their readers, a minute in all'
	echo 'make bench    Skep beside dockerd, where that is installed'

build:
	cargo build --release --package skep

demo: build
	scripts/prerequisites run
	scripts/demo $(RELEASE)/skep

test:
	scripts/prerequisites run
	cargo build --workspace --bins --tests
	scripts/images target/images
	SKEP=$(CURDIR)/$(DEBUG)/skep cargo test --workspace

check:
	scripts/prerequisites check
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --quiet -- --deny warnings
	cargo deny --log-level error check licenses bans sources
	cargo xtask tidy

fix:
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

fuzz:
	scripts/prerequisites fuzz
	scripts/fuzz $(FUZZ_SECONDS)

bench: build
	scripts/prerequisites bench
	bench/run $(RELEASE)/skep --out docs/benchmarks.md
	bench/cluster $(RELEASE)/skep --out docs/benchmarks.md
	bench/images $(RELEASE)/skep --out docs/benchmarks.md
	bench/network --out docs/benchmarks.md

advisories:
	cargo deny check advisories
