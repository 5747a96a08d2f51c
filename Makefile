# SPDX-License-Identifier: Apache-2.0
# The ways into Mallee. Each target first installs the Debian packages that it lacks (docs/dependencies.md), and asks on a
# terminal unless YES=1. Everything else is Meson's: see meson.build.
#
#   CC=clang                      build with clang, in build-clang/
#   SANITIZE=address,undefined    build with sanitizers, in build-…-address-undefined/
#   BUILD=dir                     another build folder
#   MALLEE_STATE=dir MALLEE_PORT_BASE=n   another cloud beside the first

comma := ,
ifeq ($(origin CC),default)
CC := gcc
endif
compiler_suffix := $(if $(filter-out gcc cc,$(notdir $(CC))),-$(notdir $(CC)))
sanitize_suffix := $(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
BUILD ?= build$(compiler_suffix)$(sanitize_suffix)
groups := build $(if $(compiler_suffix)$(SANITIZE),clang)
meson_options := $(if $(SANITIZE),-Db_sanitize=$(SANITIZE) -Db_lundef=false)

.PHONY: help build programs up down status clean-state check check-slow bench bench-block bench-paper uninstall install packages-run packages-test

help:
	@echo "make up           build, start the cloud on this machine, run a first instance"
	@echo "make down         shut guests and cloud down; nothing is lost"
	@echo "make check        build and test (about 20 minutes)"
	@echo "make check-slow   the tests that take longer"
	@echo "make clean-state  forget instances, images, objects, accounts"
	@echo "make uninstall    give the host back as it was"
	@echo "make bench        measure everything (about 45 minutes)"
	@echo "make bench-paper  measure what guests get of disk and network (within 30 minutes); PAPER=\"--minutes N --html FILE\""
	@echo "make bench-block  measure the block engine against its peers; BENCH=\"ROW … --pairs N\" chooses"
	@echo "make build        only build, into $(BUILD)/"

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

# All but the tests: what running a cloud takes.
programs: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet programs

$(BUILD)/build.ninja:
	@tools/packages $(groups)
	@CC="$(CC)" meson setup $(meson_options) $(BUILD) > $(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log

packages-run:
	@tools/packages $(groups) run

packages-test:
	@tools/packages $(groups) run test clang

up: packages-run programs
	@$(BUILD)/mallee up

down:
	@if [ -x $(BUILD)/mallee ]; then $(BUILD)/mallee down; else echo "Nothing is built in $(BUILD)/, so nothing of it runs."; fi

status: programs
	@$(BUILD)/mallee status

clean-state: packages-run programs
	@$(BUILD)/mallee clean-state

uninstall: packages-run programs
	@$(BUILD)/mallee uninstall

check: packages-test build
	@MALLEE_BUILD=$(BUILD) tools/check

check-slow: packages-test build
	@tools/packages slow
	@MALLEE_BUILD=$(BUILD) tools/check --slow

bench: bench-block bench-paper

# A target that is missed is told, and is no error.
bench-block: programs
	@tools/packages $(groups) bench
	@ninja -C $(BUILD) --quiet bench-programs
	@MALLEE_BUILD=$(BUILD) bench/block.py $(BENCH)

# The study's experiments on a modelled disk: $(BUILD)/bench/paper.json, and the tables of docs/paper.md.
bench-paper: programs
	@tools/packages $(groups) run bench
	@ninja -C $(BUILD) --quiet bench-programs
	@MALLEE_BUILD=$(BUILD) bench/mallee_bench.py paper $(PAPER)

install: build
	@meson install -C $(BUILD)
