# Processor quotas of the ranks of a bed of scripts/testbed.sh, which sources this: one cgroup per
# limited rank.
# shellcheck shell=bash
# shellcheck disable=SC2154

# Sets `cgroups`, the directory to make groups with a processor quota in, and `cgroup_version`.
find_cgroups() {
    cgroup_version=1
    cgroups=$(awk '$3 == "cgroup" && $4 ~ /(^|,)cpu(,|$)/ { print $2; exit }' /proc/mounts)
    if [ -z "$cgroups" ]; then
        cgroup_version=2
        cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    fi
    [ -n "$cgroups" ]
}

# Makes a group per limited rank. Periods are short, so that a limited rank is slow evenly, but a
# quota must be 1 ms at least.
make_quotas() {
    [ ${#quotas[@]} -gt 0 ] || return 0
    local hint="run it as root, where cgroups can be written"
    find_cgroups || skip "--quota: no cgroup with the cpu controller is mounted here" "$hint"
    local given group percent period
    for given in "${quotas[@]}"; do
        group=$cgroups/laggard-testbed.$name.r${given%%:*}
        percent=${given##*:}
        period=$((percent < 10 ? 100000 : 10000))
        mkdir "$group" 2>/dev/null || skip "--quota: no group can be made in $cgroups" "$hint"
        if [ "$cgroup_version" = 1 ]; then
            { echo $period >"$group/cpu.cfs_period_us" &&
                echo $((percent * period / 100)) >"$group/cpu.cfs_quota_us"; } 2>/dev/null
        else
            { grep -qw cpu "$cgroups/cgroup.subtree_control" ||
                echo +cpu >"$cgroups/cgroup.subtree_control"; } 2>/dev/null &&
                echo "$((percent * period / 100)) $period" 2>/dev/null >"$group/cpu.max"
        fi || skip "--quota: the quota of $group cannot be set" "$hint"
    done
}

# Once their processes are gone.
remove_quotas() {
    find_cgroups || return 0
    local group
    for group in "$cgroups/laggard-testbed.$name.r"*; do
        [ -d "$group" ] || continue
        for _ in {1..200}; do
            rmdir "$group" 2>/dev/null && break
            sleep 0.02
        done
        [ ! -d "$group" ] || failed "bed '$name': $group cannot be removed"
    done
}
