#!/bin/sh
# Builds the relay as one static binary and strips it:  docker/build-static.sh FILE
# Needs rustup, a C compiler and musl-tools. The image's first stage runs it, and so does docker/test.sh: what is tested is
# what is shipped.
set -eu
cd "$(dirname "$0")/.."
out=$1
target="$(uname -m)-unknown-linux-musl"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
cargo build --locked --release --target "$target" -p weft-relay --bin weft-relay
strip -o "$out" "${CARGO_TARGET_DIR:-target}/$target/release/weft-relay"
# It runs, and it is static: the loader would refuse a binary that asks for another one.
"$out" learn >/dev/null
if readelf -l "$out" | grep -q INTERP; then
    echo "$out is not static" >&2
    exit 1
fi
