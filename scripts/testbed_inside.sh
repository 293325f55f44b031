#!/usr/bin/env bash
# The inside of a bed of scripts/testbed.sh, which starts it, as the first process of the bed's
# namespaces or of those of one of its hosts. It builds them and stays: with it they end.
#
#   testbed_inside.sh bed STATE
#   testbed_inside.sh host STATE HOST
# In "A && B || skip", `skip` ends the script, so SC2015 does not apply; SC2154: see `settings`.
# shellcheck disable=SC2015,SC2154
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
state=$2
# shellcheck disable=SC1091
source "$state/settings"

failed() {
    printf '\n!! testbed: %s\n' "$1" >&2
    exit 1
}
skip() {
    printf '\n!! testbed: SKIPPED: %s\n' "this machine's kernel has no $1" >&2
    exit 77
}

# /sys shows the network of who mounts it; the cgroups below it stay those of the machine.
own_views() {
    mount --rbind /sys/fs/cgroup "$state/cgroup"
    mount -t sysfs sysfs /sys
    mount --move "$state/cgroup" /sys/fs/cgroup
    mount -t tmpfs tmpfs /dev/shm
    ip link set lo up
}

# Waits, as the first process of a namespace must: a shell takes in orphans meanwhile.
stay() {
    sleep "$1" &
    wait $!
}

host() {
    hostname "$1"
    own_views
    : >"$state/$1.ready"
    stay infinity
}

# The process that `unshare --fork`, with the given id, started as the first of its namespace.
first_child() {
    local child
    for _ in {1..500}; do
        child=$(tr -d ' ' <"/proc/$1/task/$1/children") || return 1
        [ -z "$child" ] || break
        sleep 0.01
    done
    [ -n "$child" ] && echo "$child"
}

add_host() {
    local outer init
    env LAGGARD_TESTBED_HOST="h$1" \
        unshare --net --uts --mount --ipc --pid --fork --kill-child --mount-proc \
        bash "$self" host "$state" "h$1" </dev/null &
    outer=$!
    init=$(first_child $outer) || failed "host h$1 did not start"
    ip link add "e$1" type veth peer name eth0 netns "$init" ||
        skip "pairs of virtual interfaces (veth)"
    ip link set "e$1" master eth0 up
    nsenter --target "$init" --net ip addr add "$subnet.$(($1 + 1))/24" dev eth0
    nsenter --target "$init" --net ip link set eth0 up
    for _ in {1..500}; do
        [ ! -e "$state/h$1.ready" ] || break
        sleep 0.01
    done
    [ -e "$state/h$1.ready" ] || failed "host h$1 is not ready after 5 s"
    echo "$init" >"$state/h$1"
}

# Limits what the host sends and what the bridge sends to it. Bursts below 64 KB would drop whole
# segments of an offloading interface.
slow_down() {
    local host=${1%%:*} limit=(root tbf rate "${1##*:}" burst 256kb latency 50ms)
    tc qdisc replace dev "e$host" "${limit[@]}" &&
        nsenter --target "$(cat "$state/h$host")" --net tc qdisc replace dev eth0 "${limit[@]}" ||
        skip "token bucket filter (tbf)"
}

bed() {
    hostname login
    mount --bind "$state/hosts" /etc/hosts
    own_views
    ip link add eth0 type bridge || skip "bridges"
    ip addr add "$subnet.254/24" dev eth0
    ip link set eth0 up
    local host given
    for ((host = 0; host < hosts; host++)); do
        add_host "$host"
    done
    for given in "${slow_hosts[@]}"; do
        slow_down "$given"
    done
    : >"$state/ready"
    stay "$lifetime_s"
}

"$1" "${@:3}"
