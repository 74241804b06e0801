# moeprof: one Makefile, no configure step. `make help` lists the targets.
#
# Knobs: V=1 shows commands, B=DIR build folder, PREFIX, DESTDIR, CFLAGS, CUDA=DIR toolkit.
# Optional packages are probed once into $(B)/config.mk; a missing one drops a feature, never the build.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
SHELL := /bin/bash

B ?= build
PREFIX ?= /usr/local
CUDA ?= $(firstword $(wildcard /usr/local/cuda) $(patsubst %/bin/nvcc,%,$(shell command -v nvcc)))
NVCC ?= $(wildcard $(CUDA)/bin/nvcc)
PYTHON ?= python3
CFLAGS ?= -O2 -g
VERSION := 0.1.0

ifneq ($(V),1)
Q = @
say = @printf '  %-5s %s\n' $(1) $(2);
endif

MP_CFLAGS = -std=c11 -D_GNU_SOURCE -DMP_VERSION='"$(VERSION)"' -I. -I$(B)/gen -MMD -MP -fPIC -fvisibility=hidden -pthread \
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wundef \
	$(if $(WERROR),-Werror) $(CFLAGS) $(SANFLAGS)

# ---- what this machine has ------------------------------------------------------------------

-include $(B)/config.mk
$(B)/config.mk: Makefile tests/tools/probe.sh
	@mkdir -p $(@D)
	@CC='$(CC)' sh tests/tools/probe.sh > $@

# ---- sources: a new file in a room is picked up by itself ------------------------------------

obj = $(patsubst %,$(B)/%.o,$(basename $(1)))
core_src := $(wildcard profiler/core/*.c)
report_src := $(wildcard report/*.c)
dash_src := $(wildcard profiler/dash/*.c)
cli_src := $(wildcard profiler/cli/*.c)
inj_src := $(wildcard injector/*.c)
unit_src := $(wildcard tests/unit/test_*.c)

# The guest takes from core only what it needs: link-time garbage collection drops the rest.
TOOL := $(B)/moeprof
GUEST := $(B)/libmoeprof.so
ALL_EXTRA :=

include kernels/kernels.mk

all: $(TOOL) $(GUEST) $(ALL_EXTRA)

$(TOOL): $(call obj,$(core_src) $(report_src) $(dash_src) $(cli_src))
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ $(TOOL_LIBS) -lm -ldl -pthread

$(GUEST): $(call obj,$(core_src) $(inj_src)) injector/exports.map
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -shared -Wl,-z,defs -Wl,-z,nodelete -Wl,--gc-sections \
		-Wl,--version-script=injector/exports.map -Wl,-soname,libmoeprof.so $(GUEST_LDFLAGS) -o $@ $(filter %.o,$^) -ldl -pthread

# B is given relative or absolute: what an object was made of is written down under both names.
both_names = $(sort $(abspath $(1)) $(patsubst $(CURDIR)/%,%,$(1)))
$(B)/%.o: %.c $(B)/config.mk
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(MP_CFLAGS) $(addprefix -MT ,$(call both_names,$@)) -ffunction-sections -fdata-sections $(TOOL_CFLAGS) -c -o $@ $<

# hook*.py and swap*.py travel inside the guest as text.
$(B)/gen/%_py.h: injector/%.py tests/tools/embed.sh
	@mkdir -p $(@D)
	$(call say,EMBED,$<)sh tests/tools/embed.sh $*_py $< > $@
$(B)/gen/count_kernel_ptx.h: injector/count_kernel.ptx tests/tools/embed.sh
	@mkdir -p $(@D)
	$(call say,EMBED,$<)sh tests/tools/embed.sh count_kernel_ptx $< > $@
$(call obj,injector/pybridge.c): | $(patsubst injector/%.py,$(B)/gen/%_py.h,$(wildcard injector/hook*.py))
$(call obj,injector/pyctl.c): | $(patsubst injector/%.py,$(B)/gen/%_py.h,$(wildcard injector/swap*.py))
$(call obj,injector/count.c): | $(B)/gen/count_kernel_ptx.h
# The style and the script of the HTML report travel inside the tool.
$(B)/gen/report_%.h: report/html/report.% tests/tools/embed.sh
	@mkdir -p $(@D)
	$(call say,EMBED,$<)sh tests/tools/embed.sh report_$* $< > $@
$(call obj,report/render_html.c): | $(B)/gen/report_css.h $(B)/gen/report_js.h
# The guest's two GPU kernels, kept as PTX so that a build needs no CUDA toolkit. PTX 7.0: drivers from 11 on.
ptx:
	$(NVCC) -ptx -arch=compute_75 -O3 -o injector/count_kernel.ptx injector/count_kernel.cu
	sed -i 's/^\.version .*/.version 7.0/; /^\/\/ C[ou]/d; /^\/\/ Based/d' injector/count_kernel.ptx

$(B)/dump_shm: $(B)/tests/tools/dump_shm.o $(call obj,$(core_src))
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ -ldl -pthread

$(B)/flops_tool: $(B)/tests/bridge/flops_tool.o $(call obj,$(core_src) report/spec.c)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ $(TOOL_LIBS) -lm -ldl -pthread

$(B)/top_watch: $(call obj,tests/tools/top_watch.c $(core_src))
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ -lm -ldl -pthread

$(B)/top_svg: $(call obj,tests/tools/top_svg.c $(core_src) $(report_src) $(dash_src))
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ $(TOOL_LIBS) -lm -ldl -pthread

$(B)/fake_guest: $(call obj,tests/mock/fake_guest.c profiler/core/shm.c profiler/core/base.c)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ -lm -pthread

# ---- tests ------------------------------------------------------------------------------------

unit_bin := $(patsubst tests/unit/%.c,$(B)/unit/%,$(unit_src))
.SECONDARY: $(call obj,$(unit_src)) # kept for the next run
$(B)/unit/%: $(B)/tests/unit/%.o $(call obj,$(core_src) $(report_src) $(dash_src)) $(KERNELS_CPU_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ $(TOOL_LIBS) -lcmocka -lm -ldl -pthread

include tests/mock/mock.mk
include tests/html/html.mk
include tests/emu/emu.mk

.PHONY: all ptx unit check check-gpu check-layers check-guest demo pictures bench bench-host asan ubsan tsan fmt tidy install uninstall clean help
unit: $(unit_bin)
	$(Q)for t in $(unit_bin); do timeout 120 $$t > $(B)/unit.log 2>&1 || { cat $(B)/unit.log; echo "failed: $$t"; exit 1; }; done; echo "  unit  $(words $(unit_bin)) programs passed"

check-layers:
	$(Q)sh tests/tools/layers.sh

check-guest: $(GUEST)
	$(Q)sh tests/tools/guest.sh $(GUEST)

check:
	$(Q)B=$(B) bash tests/check.sh

check-gpu: all
	$(Q)B=$(B) bash tests/gpu/check_gpu.sh

pictures: $(TOOL) $(B)/top_svg
	$(Q)B=$(B) bash samples/pictures.sh

demo:
	$(Q)B=$(B) bash samples/demo.sh

bench: all
	$(Q)$(TOOL) bench

# Host time of a swapped call, with kernels that do nothing beside a copy of the guest.
bench-host: $(GUEST) $(call obj,tests/mock/noop_kernels.c)
	@mkdir -p $(B)/noop
	$(Q)$(CC) -shared -o $(B)/noop/libmoeprof_kernels.so $(call obj,tests/mock/noop_kernels.c)
	$(Q)cp $(GUEST) $(B)/noop/
	$(Q)eval "$$(bash tests/bridge/setup_venv.sh)" && cd tests/bridge && export PYTHONDONTWRITEBYTECODE=1 MOEPROF_GUEST=$(abspath $(B))/noop/libmoeprof.so && \
		$$PY5 swap_bench.py && $$PY5 swap_bench.py lora && $$PY457 swap_bench.py

# On all processors, unless -j says otherwise.
asan ubsan tsan:
	$(Q)$(MAKE) $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$$(nproc)) B=build-$@ SANFLAGS='-fsanitize=$(subst asan,address,$(subst ubsan,undefined -fno-sanitize-recover=undefined,$(subst tsan,thread,$@))) -fno-omit-frame-pointer' unit

fmt:
	$(Q)clang-format -i $(shell git ls-files '*.c' '*.h')
# Silent when all is well; which checks: .clang-tidy. The generated headers must be there: after `make`.
tidy:
	$(Q)git ls-files 'profiler/*.c' 'report/*.c' 'injector/*.c' | xargs -P $$(nproc) -n 8 sh -c 'clang-tidy --quiet "$$@" -- \
		-std=c11 -D_GNU_SOURCE -DMP_VERSION=\"$(VERSION)\" $(TOOL_CFLAGS) -I. -I$(B)/gen 2>&1 | { ! grep -v "warnings\? generated.$$"; }' tidy

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/moeprof $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(TOOL) $(DESTDIR)$(PREFIX)/bin/moeprof
	install -s -m 755 $(GUEST) $(wildcard $(B)/libmoeprof_kernels.so) $(DESTDIR)$(PREFIX)/lib/moeprof/
	$(if $(wildcard $(B)/moe_bench),install -s -m 755 $(B)/moe_bench $(DESTDIR)$(PREFIX)/lib/moeprof/)
	install -m 644 profiler/cli/moeprof.1 $(DESTDIR)$(PREFIX)/share/man/man1/moeprof.1
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/moeprof $(DESTDIR)$(PREFIX)/share/man/man1/moeprof.1
	rm -rf $(DESTDIR)$(PREFIX)/lib/moeprof
clean:
	rm -rf $(B) build-asan build-ubsan build-tsan

help:
	@printf '%s\n' \
	'make               the tool, the guest library and the kernels' \
	'make demo          set up, build, run: a real MoE training on a GPU, else a recorded H100 run' \
	'make check         set up and run every test that needs no GPU' \
	'make check-gpu     the checks that need a GPU, as a table' \
	'make unit          unit tests only                make check-layers  who may include whom' \
	'make check-guest   what the guest exports, needs  make bench         the kernels, timed' \
	'make emu           the portable kernels on a CPU' \
	'make bench-host    host time of a swapped call    make asan|ubsan|tsan   unit tests under a sanitizer' \
	'make pictures      those of the README, from the recorded H100 runs' \
	'make fmt tidy      clang-format, clang-tidy       make install       PREFIX=$(PREFIX) DESTDIR=' \
	'make uninstall clean' \
	'V=1 shows the commands; B=DIR builds elsewhere'

-include $(shell find $(B) -name '*.d' 2>/dev/null)
