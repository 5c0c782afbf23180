#!/usr/bin/env bash
# Builds the relay's static binary and the last stage of its image, runs it read-only and as nobody, and ends it well.
# Needs Debian's docker.io and musl-tools; starts a daemon of its own if none runs. Prints the image's size.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

size_max=$((15 * 1000 * 1000))
target="$(uname -m)-unknown-linux-musl"
folder=$(mktemp -d)
name="weft-relay-test-$$"
daemon=""

cleanup() {
    docker rm -f "$name" >/dev/null 2>&1 || true
    docker rmi -f "$name" >/dev/null 2>&1 || true
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*" >&2
    docker logs "$name" 2>&1 | tail -n 20 >&2 || true
    exit 1
}

wait_for() { # what, command...
    local what=$1 tries=300
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "waited in vain for $what"
        sleep 0.2
    done
}

if ! docker info >/dev/null 2>&1; then
    export DOCKER_HOST="unix://$folder/docker.sock"
    dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" -H "$DOCKER_HOST" \
        --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs >"$folder/daemon.log" 2>&1 &
    daemon=$!
    wait_for "the Docker daemon" docker info
fi

binary=${WEFT_RELAY_BINARY:-} # a static binary that is there already
if [ -z "$binary" ]; then
    rustup target add "$target" >/dev/null 2>&1 || true
    cargo build --locked --release --target "$target" -p weft-relay --bin weft-relay
    binary="${CARGO_TARGET_DIR:-target}/$target/release/weft-relay"
fi
mkdir -p "$folder/image/etc/ssl/certs"
strip -o "$folder/image/weft-relay" "$binary"
cp /etc/ssl/certs/ca-certificates.crt "$folder/image/etc/ssl/certs/"
if file "$folder/image/weft-relay" 2>/dev/null | grep -q "dynamically linked"; then
    fail "the binary is not static"
fi

# The very stage that is shipped, with what was built here in the place of the stage before it.
sed -n '/^FROM scratch/,$p' docker/Dockerfile | sed 's/COPY --from=build /COPY ./' >"$folder/image/Dockerfile"
DOCKER_BUILDKIT=0 docker build -q -t "$name" "$folder/image" >/dev/null
size=$(docker image inspect --format '{{.Size}}' "$name")
echo "image: $((size / 1000)) kB"
[ "$size" -lt "$size_max" ] || fail "the image has $size bytes, $size_max are allowed"

docker run -d --name "$name" --network none --read-only --cap-drop ALL --security-opt no-new-privileges "$name" >/dev/null
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$name")" = healthy ]; }
wait_for "a healthy relay" healthy
docker exec "$name" /weft-relay health || fail "not healthy"
docker exec "$name" /weft-relay check-config >/dev/null || fail "check-config"
# As nobody, and process 1.
docker top "$name" -o pid,uid | grep -q ' 65534$' || fail "it does not run as nobody: $(docker top "$name" -o pid,uid)"
docker stop -t 15 "$name" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" -eq 0 ] || fail "it ended with $code"
echo "built, ran read-only as nobody, was healthy, and ended well"
