#!/bin/sh
# arm64.sh - cross-build for AArch64 and hold it, under qemu-user, to the bits of this machine's build.  `make test-arm64`.
#
# Wants aarch64-linux-gnu-gcc (CROSS), qemu-aarch64 (QEMU) and the libraries for arm64; skips, and says what is missing,
# where they are not there.  On Debian, best in a chroot (debootstrap bookworm), as it mixes architectures:
#     dpkg --add-architecture arm64; apt-get update
#     apt-get install gcc-aarch64-linux-gnu qemu-user libsqlite3-dev:arm64 libcjson-dev:arm64 libpcre2-dev:arm64 \
#         libssl-dev:arm64 libcsv-dev:arm64 libutf8proc-dev:arm64 libcurl4-openssl-dev:arm64 libcmocka-dev:arm64
cd "$(dirname "$0")/.." || exit 1
. tests/lib.sh

: "${CROSS:=aarch64-linux-gnu-gcc}"
: "${QEMU:=qemu-aarch64}"
: "${PKG_CONFIG_LIBDIR:=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig}"
arm=build/arm64
demo=models/demo

for tool in "$CROSS" "$QEMU"; do
    command -v "$tool" >/dev/null 2>&1 || { skip arm64 "$tool is not here"; exit 0; }
done
missing=$(PKG_CONFIG_LIBDIR=$PKG_CONFIG_LIBDIR pkg-config --print-errors --errors-to-stdout --exists \
    sqlite3 libcjson libpcre2-8 libcrypto libutf8proc libcurl cmocka) || {
    skip arm64 "libraries for arm64: $(echo "$missing" | head -n 1)"; exit 0; }

# The cores to be: one with dot products of bytes, and one without.
on_max() { "$QEMU" -cpu max "$@"; }
on_old() { "$QEMU" -cpu cortex-a57 "$@"; }

programs="$arm/qdelta $arm/tests/test_kernels $arm/tests/test_kernels_functions $arm/tests/test_engine_attention
          $arm/tests/test_quant_blocks $arm/tests/test_quant_solve"
# shellcheck disable=SC2086
PKG_CONFIG_LIBDIR=$PKG_CONFIG_LIBDIR make -s BUILD="$arm" CC="$CROSS" $programs || { wrong arm64 "the cross-build failed"; finish; }

expect "dot products are asked for: a core with them" 0 "neon_dot +runs it" on_max $arm/qdelta list kernels
expect "dot products are asked for: a core without" 0 "neon_dot +lacks" on_old $arm/qdelta list kernels
for t in kernels kernels_functions engine_attention quant_blocks quant_solve; do
    check "test_$t" on_max $arm/tests/test_$t
done
check "test_kernels without dot products" on_old $arm/tests/test_kernels
expect "invariance of the demonstration models" 0 "selftest: [0-9]+ passed, 0 failed" \
    on_max $arm/qdelta selftest --invariance $demo/bf16 $demo/qat-q4_0.gguf

# The other unit tests are left out: emulation costs a factor of twenty, and they take an hour.

# The same file, made by COMMAND... with the last argument naming it, here and there.
same() {
    name=$1; shift
    if "$QDELTA" "$@" "$work/here.gguf" --quiet >/dev/null && on_max $arm/qdelta "$@" "$work/there.gguf" --quiet >/dev/null; then
        check "$name" cmp "$work/here.gguf" "$work/there.gguf"
    else
        wrong "$name" "did not run"
    fi
}
for act in i16 q8 f32; do
    same "logits of q4_0, $act" logits $demo/qat-q4_0.gguf --ids $demo/golden/bf16.ids.i32 --act $act -o
done
same "logits of bf16" logits $demo/bf16 --ids $demo/golden/bf16.ids.i32 -o
for q in rtn:q4_0 rtn:q4_k_m rtn:q3_k_m rtn:iq4_xs lattice:q4_0 hqq:q4_1; do
    same "quantize $q" quantize -q $q $demo/bf16 -o
done
calib="--calib tasks/demo-text/calibration.txt --calib-rows 2 --calib-tokens 64"
# shellcheck disable=SC2086
for q in gptq:q4_0 imatrix:iq4_nl "awq:q4_0 --set grid=2"; do
    same "quantize $q" quantize -q $q $calib $demo/bf16 -o
done
finish
