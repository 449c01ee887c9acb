# qdelta - `make help` lists the targets.  GNU make; gcc or clang (CC=clang).
CC       ?= cc
PREFIX   ?= /usr/local
BUILD    ?= build
VERSION  := 0.1.0
PKG_CONFIG ?= pkg-config
PKGS     := sqlite3 libcjson libpcre2-8 libcrypto libutf8proc libcurl
WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings \
            -Wpointer-arith -Wundef -Wformat=2 -Wvla
OPT      ?= -O2
SANITIZE ?=
# A score must not depend on who built it: no -ffast-math, no -march=native, no contraction of a*b+c
# into one rounding.  Only kernel files named for an instruction set get its flags.
CFLAGS   += -std=c11 -D_POSIX_C_SOURCE=200809L $(OPT) -ffp-contract=off $(WARN) -Iharness -Iquantizers \
            -pthread $(SANITIZE) $(shell $(PKG_CONFIG) --cflags $(PKGS))
LDFLAGS  += -pthread $(SANITIZE)
LDLIBS   += $(shell $(PKG_CONFIG) --libs $(PKGS)) -lcsv -lm

SOURCES  := $(sort $(wildcard harness/*.c harness/*/*.c harness/*/*/*.c quantizers/*.c))
# Files that the program carries inside it, each as the NUL-terminated array embed_NAME (dots become _).
EMBEDDED := $(sort $(wildcard results/schema.sql reports/plots/*.gp harness/report/*.css))
OBJECTS  := $(SOURCES:%.c=$(BUILD)/%.o) $(EMBEDDED:%=$(BUILD)/embed/%.o)
CORE     := $(filter-out $(BUILD)/harness/main.o,$(OBJECTS))
UNITS    := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(UNITS:tests/unit/%.c=$(BUILD)/tests/%)
COMMIT   := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo +)

all: $(BUILD)/qdelta        ## build the program (the default)

$(BUILD)/qdelta: $(OBJECTS)
	$(CC) $(LDFLAGS) -o $@ $(OBJECTS) $(LDLIBS)

# The compiler's target, not this machine, says whose instructions there are: it may be a cross compiler.
TARGET   := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
ifneq ($(filter x86_64 amd64,$(TARGET)),)
$(BUILD)/%_avx2.o: CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/%_avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c
else ifneq ($(filter aarch64 arm64,$(TARGET)),)
$(BUILD)/%_neon_dot.o: CFLAGS += -march=armv8.2-a+dotprod
endif

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/embed/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	@{ n=embed_$(subst -,_,$(subst .,_,$(notdir $*))); echo "extern const unsigned char $$n[];"; \
	   echo "const unsigned char $$n[] = {"; od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g'; echo "0 };"; } > $(@:.o=.c)
	$(CC) $(CFLAGS) -c -o $@ $(@:.o=.c)

# Rebuild everything when the compiler or its flags change; version.o when the commit does.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS)' | cmp -s - $@ || echo '$(CC) $(CFLAGS)' > $@
$(BUILD)/commit: FORCE
	@mkdir -p $(@D)
	@echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' > $@
$(BUILD)/harness/cli/version.o: $(BUILD)/commit
$(BUILD)/harness/cli/version.o: CFLAGS += -DQDELTA_VERSION='"$(VERSION)"' -DQDELTA_COMMIT='"$(COMMIT)"'

$(BUILD)/tests/%: tests/unit/%.c $(CORE) $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Itests/unit -MMD -MP -o $@ $< $(CORE) $(LDFLAGS) $(LDLIBS) $(shell $(PKG_CONFIG) --libs cmocka)

test: $(BUILD)/qdelta $(UNIT_BIN) check-layers  ## unit and command-line tests; needs no download
	@BUILD=$(BUILD) tests/run.sh $(UNIT_BIN)

asan:                       ## the whole test suite under address, undefined-behaviour and leak checks
	$(MAKE) BUILD=build/asan OPT='-O1 -g1' SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' test

test-arm64: $(BUILD)/qdelta  ## the same bits from a cross-built AArch64 program, where that compiler and qemu-user are
	+@QDELTA=$(BUILD)/qdelta tests/arm64.sh

check-layers:               ## hold every #include to the table of rooms
	@tests/check-layers.sh

install: $(BUILD)/qdelta    ## install under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/qdelta
	install -m 755 $(BUILD)/qdelta $(DESTDIR)$(PREFIX)/bin/qdelta
	cp -R tasks $(DESTDIR)$(PREFIX)/share/qdelta/
	install -d $(DESTDIR)$(PREFIX)/share/qdelta/results $(DESTDIR)$(PREFIX)/share/qdelta/reports
	install -m 644 results/schema.sql $(DESTDIR)$(PREFIX)/share/qdelta/results/
	cp -R reports/plots $(DESTDIR)$(PREFIX)/share/qdelta/reports/

clean:                      ## remove build/
	rm -rf $(BUILD)

help:                       ## this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

-include $(OBJECTS:.o=.d) $(UNIT_BIN:=.d)

FORCE:
.PHONY: all test test-arm64 asan check-layers install clean help FORCE
