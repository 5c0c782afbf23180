#!/usr/bin/env bash
# What is shipped as containers, run: the image (its size, that it is static, runs as nobody on a read-only file system as
# process 1, is healthy, ends well), then both compose files with real agents that sync through them.
#
# Needs root, Debian (docker.io, docker-compose, iproute2, musl-tools, nats-server by name) and no registry: the last stage of
# docker/Dockerfile is built as it is, with a binary from docker/build-static.sh in the place of the stage before it. If no
# Docker daemon answers, one is started on a socket, a data folder and a network of its own, and ended again.
#
#   docker/test.sh
#   WEFT_RELAY_BINARY=FILE WEFT_BINARY=FILE docker/test.sh     # binaries that are there already
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

size_max=$((15 * 1000 * 1000))
folder=$(mktemp -d)
id="weft-test-$$"
daemon=""
inside=()   # how a command gets into the network of the daemon
images=()
project=""
agents=()

cleanup() {
    set +e
    local home
    for home in "${agents[@]}"; do weft "$home" stop >/dev/null 2>&1; done
    [ -z "$project" ] || compose down --timeout 5 --volumes >/dev/null 2>&1
    docker rm -f "$id" >/dev/null 2>&1
    [ ${#images[@]} -eq 0 ] || docker rmi -f "${images[@]}" >/dev/null 2>&1
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null
        wait "$daemon" 2>/dev/null
    fi
    rm -rf "$folder"
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*" >&2
    docker logs "$id" 2>&1 | tail -n 20 >&2
    [ -z "$project" ] || compose logs --tail 20 >&2
    [ ! -e "$folder/daemon.log" ] || tail -n 20 "$folder/daemon.log" >&2
    exit 1
}

wait_for() { # what, command...
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "waited in vain for $what"
        sleep 0.2
    done
}

# --- a daemon ----------------------------------------------------------------------------------------------------------

answers() { docker info >/dev/null 2>&1 && [ -n "$(docker info --format '{{.ServerVersion}}' 2>/dev/null)" ]; }

start_daemon() { # storage driver
    # In a network namespace of its own, so that its bridges, rules and published ports are nobody else's, and gone with it.
    unshare --net sh -c 'ip link set lo up; exec "$@"' dockerd \
        dockerd --data-root "$folder/data-$1" --exec-root "$folder/exec-$1" --pidfile "$folder/pid-$1" -H "$DOCKER_HOST" \
        --bridge=none --storage-driver="$1" >>"$folder/daemon.log" 2>&1 &
    daemon=$!
    local end=$((SECONDS + 60))
    until answers; do
        if ! kill -0 "$daemon" 2>/dev/null || [ "$SECONDS" -ge "$end" ]; then
            kill "$daemon" 2>/dev/null || true
            wait "$daemon" 2>/dev/null || true
            daemon=""
            return 1
        fi
        sleep 0.2
    done
    inside=(nsenter "--net=/proc/$daemon/ns/net")
}

if ! answers; then
    [ "$(id -u)" -eq 0 ] || fail "no Docker daemon answers, and only root can start one"
    command -v dockerd >/dev/null || fail "there is no dockerd; install docker.io"
    export DOCKER_HOST="unix://$folder/docker.sock"
    # vfs works where there is no overlay, as in a container.
    start_daemon overlay2 || start_daemon vfs || fail "the Docker daemon does not start"
fi
echo "docker $(docker info --format '{{.ServerVersion}}, {{.Driver}}')"

compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$id" -f "$project" "$@"
    else
        docker-compose -p "$id" -f "$project" "$@"
    fi
}

# Runs it in silence; says what it said if it fails.
quietly() {
    "$@" >"$folder/said" 2>&1 || { cat "$folder/said" >&2; return 1; }
}

# --- the alerts --------------------------------------------------------------------------------------------------------

# Unpacked, not installed: installing it would start it.
promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
    (cd "$folder" && apt-get download -q prometheus >/dev/null && dpkg-deb -x prometheus_*.deb prometheus) ||
        fail "Debian's prometheus cannot be had"
    promtool="$folder/prometheus/usr/bin/promtool"
fi
quietly "$promtool" test rules docker/prometheus/alerts-test.yaml || fail "the alerts do not fire as they should"
echo "alerts: each fires when it should, and none else"

# --- the image ---------------------------------------------------------------------------------------------------------

export WEFT_RELAY_IMAGE="$id" NATS_IMAGE="$id-nats" CADDY_IMAGE="$id-caddy"

build() { # name, folder
    DOCKER_BUILDKIT=0 quietly docker build -q -t "$1" "$2" || fail "the image $1 cannot be built"
    images+=("$1")
}

mkdir -p "$folder/image/etc/ssl/certs"
if [ -n "${WEFT_RELAY_BINARY:-}" ]; then
    strip -o "$folder/image/weft-relay" "$WEFT_RELAY_BINARY"
    if readelf -l "$folder/image/weft-relay" | grep -q INTERP; then fail "$WEFT_RELAY_BINARY is not static"; fi
else
    docker/build-static.sh "$folder/image/weft-relay"
fi
cp /etc/ssl/certs/ca-certificates.crt "$folder/image/etc/ssl/certs/"
# The very stage that is shipped, with what was built here in the place of the stage before it.
sed -n '/^FROM scratch/,$p' docker/Dockerfile | sed 's/COPY --from=build /COPY ./' >"$folder/image/Dockerfile"
build "$WEFT_RELAY_IMAGE" "$folder/image"
size=$(docker image inspect --format '{{.Size}}' "$WEFT_RELAY_IMAGE")
echo "image: $((size / 1000)) kB"
[ "$size" -lt "$size_max" ] || fail "the image has $size bytes, $size_max are allowed"

docker run -d --name "$id" --network none --read-only --cap-drop ALL --security-opt no-new-privileges "$WEFT_RELAY_IMAGE" >/dev/null
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }
wait_for "a healthy relay" healthy "$id"
docker exec "$id" /weft-relay health || fail "not healthy"
docker exec "$id" /weft-relay check-config >/dev/null || fail "check-config"
# As nobody, and process 1: what runs in it is the relay alone.
main=$(docker inspect --format '{{.State.Pid}}' "$id")
[ "$(awk '/^Uid:/ { print $2 "/" $3 }' "/proc/$main/status")" = 65534/65534 ] || fail "it does not run as nobody"
awk '/^NSpid:/ { exit $NF != 1 }' "/proc/$main/status" || fail "it is not process 1"
awk '/^CapEff:/ { exit $2 !~ /^0+$/ }' "/proc/$main/status" || fail "it has capabilities"
awk '$5 == "/" { exit $6 !~ /^ro/ }' "/proc/$main/mountinfo" || fail "its root can be written"
since=$SECONDS
docker stop -t 15 "$id" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$id")
[ "$code" -eq 0 ] || fail "it ended with $code"
docker rm "$id" >/dev/null
echo "image: ran read-only as nobody and process 1, was healthy, ended $((SECONDS - since)) s after SIGTERM"

# --- the compose files, with agents --------------------------------------------------------------------------------------

# An image with one program of this machine and the libraries that it loads.
image_of() { # name, program, dockerfile lines
    local root="$folder/$1" library
    mkdir -p "$root/root/tmp"
    cp "$2" "$root/root/program"
    for library in $(ldd "$2" 2>/dev/null | grep -o '/[^ ]*'); do
        install -D "$(readlink -f "$library")" "$root/root$library"
    done
    printf 'FROM scratch\nCOPY root /\n%s\n' "$3" >"$root/Dockerfile"
    build "$1" "$root"
}

weft_binary=${WEFT_BINARY:-}
if [ -z "$weft_binary" ]; then
    cargo build --locked --profile ci -p weft-agent --bin weft
    weft_binary="${CARGO_TARGET_DIR:-target}/ci/weft"
fi
weft_binary=$(realpath "$weft_binary")
# Unpacked, not installed: installing it would start it.
caddy=$(command -v caddy || true)
if [ -z "$caddy" ]; then
    (cd "$folder" && apt-get download -q caddy >/dev/null && dpkg-deb -x caddy_*.deb caddy) || fail "Debian's caddy cannot be had"
    caddy="$folder/caddy/usr/bin/caddy"
fi
image_of "$NATS_IMAGE" "$(command -v nats-server)" 'USER 65534:65534
ENTRYPOINT ["/program"]'
image_of "$CADDY_IMAGE" "$caddy" 'USER 65534:65534
ENV HOME=/tmp XDG_DATA_HOME=/tmp XDG_CONFIG_HOME=/tmp
ENTRYPOINT ["/program"]
CMD ["run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]'

weft() { # home, arguments...
    local home=$1
    shift
    "${inside[@]}" env WEFT_HOME="$home" HOME="$home" WEFT_LAN=off WEFT_KEYCHAIN=off "$weft_binary" "$@"
}

has() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

# Two people who share a folder through the relay, and write both ways.
people_sync() { # label
    local one="$folder/$1/one" two="$folder/$1/two" link
    mkdir -p "$one/notes" "$two/notes"
    agents+=("$one" "$two")
    echo "from one" >"$one/notes/one.md"
    weft "$one" init "$one/notes" --name notes --as one --relay ws://localhost:7017 --yes >/dev/null 2>&1 || fail "weft init"
    link=$(weft "$one" -C "$one/notes" invite --json | sed 's/.*"link":"\([^"]*\)".*/\1/')
    weft "$two" join "$link" "$two/notes" --merge --as two >/dev/null 2>&1 || fail "weft join"
    wait_for "the first file" has "$two/notes/one.md" "from one"
    echo "from two" >"$two/notes/two.md"
    wait_for "the answer" has "$one/notes/two.md" "from two"
}

people_sync_on() { # label, text
    local one="$folder/$1/one" two="$folder/$1/two"
    echo "$2" >"$one/notes/more.md"
    wait_for "'$2'" has "$two/notes/more.md" "$2"
}

people_leave() {
    local home
    for home in "${agents[@]}"; do weft "$home" stop >/dev/null 2>&1 || true; done
    agents=()
}

# Where this machine allows fewer open files than the compose files ask for.
limit=$(ulimit -Hn)
if [ "$limit" != unlimited ] && [ "$limit" -lt 65536 ]; then export WEFT_RELAY_NOFILE=$limit; fi

project=docker/compose.yaml
quietly compose up -d --no-build || fail "compose.yaml does not start"
wait_for "the relay of compose.yaml" healthy "$(compose ps -q relay)"
people_sync single
people_leave
quietly compose down --timeout 15 || fail "compose.yaml does not end"
echo "compose.yaml: two agents synced through it"

project=docker/compose-cluster.yaml
export WEFT_RELAY_TOKEN_KEYS WEFT_RELAY_NATS_TOKEN
WEFT_RELAY_TOKEN_KEYS=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
WEFT_RELAY_NATS_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
quietly compose up -d --no-build || fail "compose-cluster.yaml does not start"
for relay in relay-1 relay-2 relay-3; do
    wait_for "$relay" healthy "$(compose ps -q "$relay")"
done
people_sync cluster
# Whichever relays they are at: each goes away and comes back in turn, and they go on.
for relay in relay-1 relay-2 relay-3; do
    container=$(compose ps -q "$relay")
    docker kill "$container" >/dev/null
    people_sync_on cluster "without $relay"
    docker start "$container" >/dev/null
    wait_for "$relay again" healthy "$container"
done
container=$(compose ps -q nats)
docker kill "$container" >/dev/null
docker start "$container" >/dev/null
people_sync_on cluster "after NATS came back"
people_leave
quietly compose down --timeout 15 || fail "compose-cluster.yaml does not end"
project=""
echo "compose-cluster.yaml: two agents synced through it while each relay and NATS went away and came back"
