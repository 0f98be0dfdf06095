# What the tests of packages share: a machine of their own, backends, waiting, the README. Sourced by each of them.
#
# A test runs in namespaces: its ports are free, and when it ends, or has not ended within five minutes, every process that it
# has started ends, and every mount of it is gone.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=${SESSILE_ISOLATED:-}
outer=
[ -n "$scratch" ] || { scratch=$(mktemp -d) && outer=1; }
# Name of the cgroups of a machine that a test boots, if it does.
cgroup=sessile-${scratch##*/}

# Removes what is left of a test: an empty folder, and cgroups once the last process has ended.
remove() {
    local turn
    rmdir "$scratch"
    for turn in {1..50}; do
        find /sys/fs/cgroup -depth -path "*/$cgroup*" -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
}

if [ -n "$outer" ]; then
    trap remove EXIT
    code=0
    SESSILE_ISOLATED=$scratch timeout --foreground --signal=KILL 300 \
        unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@" || code=$?
    [ "$code" != 137 ] || echo "$(basename "$0"): cut off after five minutes" >&2
    exit "$code"
fi
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs "$scratch"

# Ends the test, and shows what the program under test has said last.
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    [ ! -s "$scratch/err" ] || tail -n 20 "$scratch/err" >&2
    exit 1
}

# Waits until a command succeeds.
eventually() {
    local deadline=$((SECONDS + 30))
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

# Commands of the README, as they stand there: the fence that begins with these words.
readme() {
    awk -v begins="$1" '
        /^```/ { fenced = !fenced; shown = 0; first = fenced; next }
        first { shown = index($0, begins) == 1; first = 0 }
        shown
    ' "$here/../../README.md" | grep . || fail "the README has no commands that begin with: $1"
}
