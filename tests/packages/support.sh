# What the tests of packages share: a machine of their own, backends, waiting. Sourced by each of them.
#
# A test runs in namespaces: its ports are free, and when it ends, every process that it has started ends.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${SESSILE_ISOLATED:-}" ]; then
    export SESSILE_ISOLATED=1
    exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@"
fi
ip link set lo up
scratch=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$scratch"
trap 'umount --lazy "$scratch" && rmdir "$scratch"' EXIT

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

# Waits until a command succeeds.
eventually() {
    local deadline=$((SECONDS + 20))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "waited in vain for: $*"
        sleep 0.05
    done
}

# Takes the time from here to the next `took`.
begin() { begun=$EPOCHREALTIME; }
took() { awk -v what="$1" -v from="$begun" -v to="$EPOCHREALTIME" 'BEGIN { printf "  %6.2f s  %s\n", to - from, what }'; }

# Two servers, at the ports that the packaged configuration names. Each answers with its name.
two_backends() {
    "$here/backend.py" a 9000 &
    "$here/backend.py" b 9001 &
    eventually curl -sf http://127.0.0.1:9000/
    eventually curl -sf http://127.0.0.1:9001/
}

# Three requests of one client reach one backend, and thirty clients reach both. A client is known by its cookie, also from
# another address, or by its address.
sticks() {
    local by=$1 url=$2 client turn answers all=
    for client in $(seq 1 30); do
        answers=$(for turn in 1 2 3; do
            case $by in
                cookie) curl -sS --interface "127.0.$turn.$client" -b "$scratch/jar.$client" -c "$scratch/jar.$client" "$url" ;;
                address) curl -sS --interface "127.0.0.$client" "$url" ;;
            esac
        done | sort -u)
        case $answers in
            a | b) all=$all$answers ;;
            *) fail "client $client, known by its $by, was answered by ${answers//$'\n'/ and }" ;;
        esac
    done
    [[ $all == *a* && $all == *b* ]] || fail "all clients were answered by ${all:0:1}"
}
