#!/usr/bin/env bash
# Several hosts on one machine, to run MPI programs across them, slow one down, or kill one.
#
#   testbed.sh run [OPTIONS] -- COMMAND...    a bed for one COMMAND, on every rank under mpirun
#   testbed.sh up NAME [OPTIONS]              a bed that stays
#   testbed.sh launch NAME -- COMMAND...      COMMAND on every rank of that bed under mpirun
#   testbed.sh exec NAME HOST -- COMMAND...   COMMAND on a host: h0, h1, ... or login
#   testbed.sh pids NAME [HOST]               process ids of a host, its first process first, or
#                                             of the whole bed
#   testbed.sh unplug NAME HOST               cut a host off the network, as a dead machine is
#   testbed.sh down NAME                      kill and remove all that a bed of this name left
#
#   --hosts N              1 to 8 hosts, h0, h1, ...; 1 is this machine as it is (default 2)
#   --ranks-per-host N     ranks 0 to N-1 on h0 and so on (default 1)
#   --mpi openmpi|mpich    whose mpirun (default openmpi)
#   --slow-host H:RATE     limit host H in both directions, e.g. 2:100mbit; repeatable
#   --quota RANK:PERCENT   limit a rank to a share of one processor by a cgroup; repeatable
#   --mpirun-arg ARG       one more argument for mpirun; repeatable
#   --timeout S            kill all of it after S seconds (default: run 600, up 3600)
#   --name NAME, --keep    (run) the bed's name; leave it up for a look inside
#
# The exit code is COMMAND's. 2: bad arguments. 77: skipped, because this machine does not offer
# what is needed (it is said what). 124: the time was up.
#
# A bed of several hosts needs root. It is one process namespace with a network, host name, /proc,
# /sys and /dev/shm of its own, called login: mpirun runs there, and a bridge called eth0 joins the
# hosts. Each host is the same again inside of it. So beds share nothing with each other or with the
# machine's network, all may use one subnet, and killing one process ends a host or a whole bed.
# Processes of a bed carry LAGGARD_TESTBED=NAME in their environment, those of a host
# LAGGARD_TESTBED_HOST too. The caller's environment reaches all ranks.
# In "A && B || usage", `usage` ends the script, so SC2015 does not apply.
# shellcheck disable=SC2015
set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
inside=${self%/*}/testbed_inside.sh
beds=/tmp/laggard-testbed.$UID
subnet=10.77.0
# shellcheck source=scripts/testbed_quotas.sh
source "${self%/*}/testbed_quotas.sh"

loud() { printf '\n!! testbed: %s\n' "$*" >&2; }
failed() {
    loud "$1"
    exit 1
}
usage() {
    loud "$1"
    printf 'hint: %s\n' "${2:-see the head of $self}" >&2
    exit 2
}
skip() {
    loud "SKIPPED: $1"
    printf 'hint: %s\n' "$2" >&2
    exit 77
}

# --- arguments ----------------------------------------------------------------------------------

name='' hosts=2 ranks_per_host=1 mpi=openmpi timeout_s='' keep=no
slow_hosts=() quotas=() mpirun_args=() command=()

is_count() { [[ $1 =~ ^[1-9][0-9]{0,5}$ ]]; }

set_name() {
    [[ $1 =~ ^[A-Za-z0-9_-]{1,64}$ ]] || usage "a bed's name is of A-Z a-z 0-9 _ -, not '$1'"
    name=$1
    state=$beds/$name
}

parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --) command=("${@:2}") && return ;;
            --keep) keep=yes && shift && continue ;;
        esac
        [ $# -ge 2 ] || usage "'$1' is no option, or lacks its value"
        case $1 in
            --hosts) hosts=$2 ;;
            --ranks-per-host) ranks_per_host=$2 ;;
            --mpi) mpi=$2 ;;
            --slow-host) slow_hosts+=("${2#h}") ;;
            --quota) quotas+=("$2") ;;
            --mpirun-arg) mpirun_args+=("$2") ;;
            --timeout) timeout_s=$2 ;;
            --name) set_name "$2" ;;
            *) usage "'$1' is no option" ;;
        esac
        shift 2
    done
}

check_options() {
    [[ $hosts =~ ^[1-8]$ ]] || usage "--hosts is 1 to 8, not '$hosts'"
    is_count "$ranks_per_host" ||
        usage "--ranks-per-host is a number from 1, not '$ranks_per_host'"
    is_count "$timeout_s" ||
        usage "--timeout is in whole seconds from 1, not '$timeout_s'"
    [[ $mpi == openmpi || $mpi == mpich ]] || usage "--mpi is openmpi or mpich, not '$mpi'"
    local given
    for given in "${slow_hosts[@]}"; do
        [[ $given =~ ^([0-7]):[0-9]+[kmg]bit$ ]] && [ "${BASH_REMATCH[1]}" -lt "$hosts" ] ||
            usage "--slow-host is HOST:RATE, e.g. 1:100mbit, with a host below $hosts, not '$given'"
        [ "$hosts" -gt 1 ] || usage "--slow-host needs two hosts or more"
    done
    for given in "${quotas[@]}"; do
        [[ $given =~ ^(0|[1-9][0-9]{0,3}):([1-9][0-9]{0,3})$ ]] &&
            [ "${BASH_REMATCH[1]}" -lt $((hosts * ranks_per_host)) ] ||
            usage "--quota is RANK:PERCENT with one of the bed's ranks, not '$given'"
    done
}

need_command() { [ ${#command[@]} -gt 0 ] || usage "no command" "put it after --"; }

# --- what this machine offers -------------------------------------------------------------------

# The launcher of the MPI that was asked for: Debian's name first, then what is in PATH.
find_mpirun() {
    local candidate brand='Open MPI'
    [ "$mpi" = openmpi ] || brand=HYDRA
    for candidate in "mpirun.$mpi" mpirun mpiexec; do
        if [[ $("$candidate" --version 2>&1 </dev/null) == *"$brand"* ]]; then
            mpirun=$(command -v "$candidate")
            return
        fi
    done
    skip "there is no mpirun of $mpi" "apt-get install $([ "$mpi" = openmpi ] &&
        echo openmpi-bin || echo mpich)"
}

need_namespaces() {
    [ "$(id -u)" -eq 0 ] || skip "several hosts need root (network namespaces)" "run it as root"
    local tool
    for tool in ip tc unshare nsenter setpriv; do
        command -v "$tool" >/dev/null ||
            skip "there is no '$tool'" "apt-get install iproute2 util-linux"
    done
    unshare --net --uts --mount --ipc --pid --fork true 2>/dev/null ||
        skip "this machine allows no new namespaces, not even to root" "leave the container"
}

# --- processes of a bed -------------------------------------------------------------------------

# Field 22 of /proc/PID/stat: when the process started, so that a reused id is told from it.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

lives() { [ -n "$2" ] && [ "$(started "$1")" = "$2" ]; }

# The processes whose environment holds a setting, by default that of this bed.
marked() {
    { grep -lzsFx "${1:-LAGGARD_TESTBED=$name}" /proc/[0-9]*/environ || true; } | cut -d/ -f3
}

# Kills all processes with a mark, until there is none.
kill_marked() {
    local pids
    for _ in {1..200}; do
        pids=$(marked "$@")
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086
        kill -KILL $pids 2>/dev/null || true
        sleep 0.02
    done
    failed "bed '$name': processes that cannot be killed: ${pids//$'\n'/ }"
}

# The id of a host's first process as seen from here. $state/hN holds its id inside the bed.
host_init() {
    local inner pid
    read -r pid _ <"$state/login" || return 1
    if [ "$1" = login ]; then
        echo "$pid"
        return
    fi
    inner=$(<"$state/$1") || return 1
    for pid in $(marked); do
        if grep -qsP "^NSpid:.*\t$inner\t1\$" "/proc/$pid/status"; then
            echo "$pid"
            return
        fi
    done
    return 1
}

# Sets `enter`, what to put before a command to run it on a host, in the present directory.
enter_host() {
    local init
    enter=()
    [ "$hosts" -gt 1 ] || return 0
    init=$(host_init "$1") || failed "host $1 of bed '$name' is dead"
    # shellcheck disable=SC2016
    enter=(nsenter --target "$init" --net --uts --mount --ipc --pid
        sh -c 'cd "$0" && exec "$@"' "$PWD")
}

# Ends the script unless the bed is there.
need_bed() {
    [ -f "$state/settings" ] || usage "there is no bed '$name'" "testbed.sh up $name"
    # shellcheck disable=SC1091
    source "$state/settings"
}

need_host() {
    [[ $1 == login || ($1 =~ ^h[0-7]$ && ${1#h} -lt $hosts) ]] ||
        usage "bed '$name' has no host '$1'" "its hosts are login and h0 to h$((hosts - 1))"
}

list_pids() {
    if [ $# -eq 0 ] || [ "$hosts" -eq 1 ]; then
        marked
        return
    fi
    local init space
    init=$(host_init "$1") || return 0
    space=$(readlink "/proc/$init/ns/pid")
    echo "$init"
    { find /proc/[0-9]*/ns/pid -maxdepth 0 -printf '%h %l\n' 2>/dev/null || true; } |
        sed -n "\|^/proc/$init/|d; s|^/proc/\([0-9]*\)/ns ${space//[[\]]/.}\$|\1|p"
}

# --- up and down --------------------------------------------------------------------------------

write_files() {
    {
        echo '127.0.0.1 localhost'
        echo "$subnet.254 login"
        local host
        for ((host = 0; host < hosts; host++)); do
            echo "$subnet.$((host + 1)) h$host"
        done
    } >"$state/hosts"
    # What mpirun starts instead of ssh: options, a host, and words for a shell over there.
    cat >"$state/rsh" <<RSH
#!/usr/bin/env bash
while [[ \$1 == -* ]]; do shift; done
host=\$1
shift
exec nsenter --target "\$(<"$state/\$host")" --net --uts --mount --ipc --pid \\
    env LAGGARD_TESTBED_HOST="\$host" /bin/sh -c "cd \$(printf %q "\$PWD"); \$*"
RSH
    # What mpirun starts instead of the command where ranks have quotas.
    cat >"$state/limited" <<LIMITED
#!/bin/sh
group=${cgroups-}/laggard-testbed.$name.r\${OMPI_COMM_WORLD_RANK:-\${PMI_RANK:?no rank}}
if [ -d "\$group" ]; then
    echo 0 >"\$group/cgroup.procs" || exit 1
fi
exec "\$@"
LIMITED
    chmod +x "$state/rsh" "$state/limited"
    mkdir "$state/tmp" "$state/cgroup"
    declare -p name hosts ranks_per_host mpi mpirun mpirun_args slow_hosts quotas lifetime_s \
        subnet | sed 's/^declare -[-a]* //' >"$state/settings"
}

# Runs a step while no other script claims or removes a bed. Without this, who sweeps up a dead bed
# could kill a new one that took its name meanwhile.
alone() { (flock 9 && "$@") 9>"$beds.lock"; }

claim() {
    [ -d "$beds" ] || mkdir -m 700 "$beds"
    mkdir "$state" 2>/dev/null || return
    echo "$$ $(started $$)" >"$state/owner"
}

# Builds the bed. With `bound` it ends when this script does, whatever ends it.
up() {
    find_mpirun
    [ "$hosts" -eq 1 ] || need_namespaces
    [ ! -e "$beds" ] || [ -O "$beds" ] || usage "$beds belongs to someone else"
    sweep
    alone claim || usage "there is a bed '$name' already" "testbed.sh down $name"
    trap 'down_after_signal 130' INT
    trap 'down_after_signal 143' TERM HUP
    trap 'down || true' EXIT
    make_quotas
    write_files
    [ "$hosts" -gt 1 ] || return 0
    local bind=(setsid) log=$state/log outer bed status=1
    [ "$1" != bound ] || bind=(setpriv --pdeathsig KILL)
    env LAGGARD_TESTBED="$name" "${bind[@]}" \
        unshare --net --uts --mount --ipc --pid --fork --kill-child --mount-proc \
        bash "$inside" bed "$state" </dev/null >"$log" 2>&1 &
    outer=$!
    for _ in {1..1500}; do
        [ ! -e "$state/ready" ] && kill -0 $outer 2>/dev/null || break
        sleep 0.02
    done
    if [ ! -e "$state/ready" ]; then
        kill -0 $outer 2>/dev/null || wait $outer || status=$?
        cat "$log" >&2
        [ $status -ne 77 ] || exit 77
        failed "bed '$name' could not be built"
    fi
    disown $outer
    bed=$(tr -d ' ' <"/proc/$outer/task/$outer/children")
    echo "$bed $(started "$bed")" >"$state/login"
}

# Removes beds whose owner was killed.
sweep() {
    local left
    for left in "$beds"/*/owner; do
        alone remove_dead "$left" || true
    done
}

remove_dead() {
    local pid when
    read -r pid when 2>/dev/null <"$1" || return 0
    if ! lives "$pid" "$when"; then
        set_name "$(basename "$(dirname "$1")")"
        remove
    fi
}

# A signal ends the script only after its bed.
down_after_signal() {
    trap '' INT TERM HUP
    exit "$1"
}

down() { alone remove; }

# Kills the processes of a bed, also those of one that was left half built, and removes its traces.
remove() {
    kill_marked
    remove_quotas
    rm -rf --one-file-system "$state"
    rmdir "$beds" 2>/dev/null || true
}

# --- launching ----------------------------------------------------------------------------------

# Sets `environment` and `arguments` for mpirun. Ranks share processors, so they must yield.
mpirun_line() {
    local list host
    environment=(LAGGARD_TESTBED="$name" LAGGARD_TESTBED_LAUNCH=$$
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1
        OMPI_MCA_orte_tmpdir_base="$state/tmp")
    arguments=(-n $((hosts * ranks_per_host)))
    [ "$mpi" = mpich ] || arguments+=(--map-by slot --bind-to none)
    [ "$hosts" -gt 1 ] || return 0
    for ((host = 0; host < hosts; host++)); do
        list+=${list:+,}h$host:$ranks_per_host
    done
    environment+=(OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent="$state/rsh"
        OMPI_MCA_plm_rsh_no_tree_spawn=1 OMPI_MCA_oob_tcp_if_include="$subnet.0/24"
        OMPI_MCA_btl="self,vader,tcp" OMPI_MCA_btl_tcp_if_include="$subnet.0/24"
        UCX_TLS="tcp,self" UCX_NET_DEVICES=eth0)
    if [ "$mpi" = openmpi ]; then
        arguments+=(--host "$list")
    else
        arguments+=(-launcher ssh -launcher-exec "$state/rsh" -iface eth0 -hosts "$list")
    fi
}

# Runs the command under mpirun and returns its exit code. In the background, so that a signal to
# this script is heard at once; a job in the background would ignore SIGINT, hence `env`. Each
# process down to mpirun ends with the one above it.
launch() {
    local environment arguments enter bind=(setpriv --pdeathsig KILL) wrapper=() status=0
    mpirun_line
    enter_host login
    command -v setpriv >/dev/null || bind=()
    [ ${#quotas[@]} -eq 0 ] || wrapper=("$state/limited")
    SECONDS=0
    env --default-signal=INT,QUIT "${environment[@]}" \
        "${bind[@]}" timeout --kill-after 3 "$timeout_s" "${bind[@]}" "${enter[@]}" \
        "${bind[@]}" "$mpirun" "${arguments[@]}" "${mpirun_args[@]}" "${wrapper[@]}" \
        "${command[@]}" </dev/null &
    wait $! || status=$?
    if [ $SECONDS -ge "$timeout_s" ] && [[ $status == 124 || $status == 137 ]]; then
        loud "the $timeout_s s of --timeout are over: all of it is killed"
        kill_marked "LAGGARD_TESTBED_LAUNCH=$$"
        status=124
    fi
    return $status
}

main() {
    local verb=${1-} status=0
    shift || true
    case $verb in
        run)
            set_name "run-$$"
            parse_options "$@"
            timeout_s=${timeout_s:-600}
            check_options
            need_command
            lifetime_s=$((timeout_s + 60))
            [ $keep = no ] || lifetime_s=3600
            if [ $keep = no ]; then up bound; else up free; fi
            launch || status=$?
            [ $keep = no ] || stays
            exit $status
            ;;
        up)
            set_name "${1-}"
            parse_options "${@:2}"
            [ ${#command[@]} -eq 0 ] || usage "up takes no command" "testbed.sh launch $name -- ..."
            timeout_s=${timeout_s:-3600}
            check_options
            lifetime_s=$timeout_s
            up free
            stays
            ;;
        launch | exec | pids | unplug | down) of_bed "$verb" "$@" ;;
        *) usage "'$verb' is no command of testbed.sh" ;;
    esac
}

# Leaves the bed behind when this script ends. Alone: who sweeps may have read that it is this
# script's, and must find that alive.
stays() {
    alone hand_over
    trap - EXIT
    printf 'testbed: bed %s is up; to remove it: %s down %s\n' "$name" "$self" "$name" >&2
}

# The bed is its own first process's from now on.
hand_over() {
    if [ "$hosts" -gt 1 ]; then
        cp "$state/login" "$state/owner"
    else
        rm -f "$state/owner"
    fi
}

of_bed() {
    local verb=$1 host=''
    set_name "${2-}"
    shift 2
    if [ "$verb" = down ]; then
        down
        return
    fi
    need_bed
    if [ "$verb" != launch ] && [ $# -gt 0 ]; then
        host=$1
        need_host "$host"
        shift
    fi
    case $verb in
        launch)
            local built="$hosts $mpi ${slow_hosts[*]} ${quotas[*]}"
            parse_options "$@"
            [ "$built" = "$hosts $mpi ${slow_hosts[*]} ${quotas[*]}" ] ||
                usage "bed '$name' is as it was built" "give launch --ranks-per-host at most"
            timeout_s=${timeout_s:-$lifetime_s}
            check_options
            need_command
            trap 'kill_marked "LAGGARD_TESTBED_LAUNCH=$$"; exit 130' INT
            trap 'kill_marked "LAGGARD_TESTBED_LAUNCH=$$"; exit 143' TERM HUP
            launch
            ;;
        pids) list_pids ${host:+"$host"} ;;
        exec)
            [ -n "$host" ] || usage "exec on which host?"
            parse_options "$@"
            need_command
            local enter
            enter_host "$host"
            exec "${enter[@]}" env LAGGARD_TESTBED="$name" LAGGARD_TESTBED_HOST="$host" \
                "${command[@]}"
            ;;
        unplug)
            [[ $host == h* ]] && [ "$hosts" -gt 1 ] || usage "unplug which of several hosts?"
            nsenter --target "$(host_init login)" --net ip link set "e${host#h}" down
            ;;
    esac
}

main "$@"
