#!/bin/bash
# A real Slurm cluster on one machine, for tests (root; Debian's slurm-wlm, munge, iproute2; no systemd, no cgroups).
#
#   cluster.sh up DIR NODES HOSTS           stays in the foreground; SIGKILL ends it with every process of the cluster
#   cluster.sh exec DIR HOST COMMAND...     run a command there, in the present folder; HOST is ctl, node1, node2, ...
#   cluster.sh start|crash|kill|cut|join DIR NODE
#                      power on; all its processes die; they die with the cable out; pull the cable out; plug it in
#
# DIR is a new folder with a short name (a unix socket goes there). HOSTS says what the nodes' /etc/hosts do:
# good: every name with its address; debian: a node's own name is 127.0.1.1; none: no names.
#
# slurmctld, and within it each node, live in namespaces of their own (network, mounts, name, processes): one SIGKILL
# ends a node, or all; nothing is written outside DIR; clusters side by side do not see each other.
set -euo pipefail
SELF=$(readlink -f "${BASH_SOURCE[0]}")
NET=10.77.0
APART=(--net --mount --uts --ipc --pid --fork --kill-child)
INSIDE=(nsenter --net --mount --uts --ipc --pid --target)
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

nodes() { seq -f node%g "$1"; }
address() { echo "$NET.$((10 + ${1#node}))"; }
pid() { cat "$DIR/pid/$1"; }
wait_for() { for _ in {1..200}; do "$@" &>/dev/null && return; sleep 0.05; done; echo "not so in 10 s: $*"; exit 1; }

# ---- configuration ------------------------------------------------------------------------------------------------

configure() { # NODES HOSTS
    mkdir -p "$DIR"/{hosts,log,munge,pid,state}
    chmod 711 "$DIR" "$DIR/munge" # munged wants the way to its socket open
    (umask 077 && head -c 128 /dev/urandom >"$DIR/munge/key")
    mknod "$DIR/gpu0" c 1 3 # a gpu must be a device, if only another /dev/null
    mknod "$DIR/gpu1" c 1 3
    echo "Name=gpu File=$DIR/gpu0,$DIR/gpu1" >"$DIR/gres.conf"
    # never used, but without a word here slurmd looks for systemd
    local cgroup=disabled
    [[ $(slurmd -V) != *" 2"[23].* ]] || cgroup=cgroup/v1 # from before there was that word
    printf 'CgroupPlugin=%s\nIgnoreSystemd=yes\n' "$cgroup" >"$DIR/cgroup.conf"
    { settings; for n in $(nodes "$1"); do
        echo "NodeName=$n NodeAddr=$([ "$2" = none ] && address "$n" || echo "$n") CPUs=16 RealMemory=64000 Gres=gpu:2"
    done; } >"$DIR/slurm.conf"
    hosts "$1" good ctl >"$DIR/hosts/ctl"
    for n in $(nodes "$1"); do hosts "$1" "$2" "$n" >"$DIR/hosts/$n"; done
}

settings() {
    cat <<END
ClusterName=p2p
SlurmctldHost=ctl($NET.1)
SlurmUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it starts again
AuthInfo=socket=$DIR/munge/socket,cred_expire=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool.%n
SlurmctldPidFile=$DIR/pid/slurmctld
SlurmdPidFile=$DIR/pid/slurmd.%n
SlurmctldLogFile=$DIR/log/slurmctld
SlurmdLogFile=$DIR/log/slurmd.%n
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
# believe the declared CPUs, memory and GPUs, not the machine's
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=5
KillWait=10
MinJobAge=3600
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF
END
}

hosts() { # NODES HOSTS OWN_NAME
    echo "127.0.0.1 localhost"
    [ "$2" != none ] || return 0
    echo "$NET.1 ctl"
    for n in $(nodes "$1"); do
        [ "$2/$3" = "debian/$n" ] && echo "127.0.1.1 $n" || echo "$(address "$n") $n"
    done
}

# ---- inside -------------------------------------------------------------------------------------------------------

become() { # HOST: as a machine that has just booted
    local number
    read -r number _ </proc/self/stat # /proc is still the one around us, so this is how they call us there
    mount -t proc proc /proc
    mount --bind "$DIR/hosts/$1" /etc/hosts
    mount -t tmpfs tmpfs /dev/shm
    hostname "$1"
    ip link set lo up
    echo "$number" >"$DIR/pid/$1.new" && mv "$DIR/pid/$1.new" "$DIR/pid/$1"
}

controller() { # NODES
    become ctl
    ip link add br0 type bridge
    ip addr add "$NET.1/24" dev br0
    ip link set br0 up
    munged -F --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" \
        --pid-file="$DIR/munge/pid" --seed-file="$DIR/munge/seed" --log-file="$DIR/log/munged" &
    wait_for test -S "$DIR/munge/socket"
    slurmctld -D -f "$DIR/slurm.conf" &
    for n in $(nodes "$1"); do power "$n"; done
    wait # as process 1 bash buries the orphans
}

power() { # NODE, from within ctl
    rm -f "$DIR/pid/$1"
    ip link delete "to-$1" 2>/dev/null || true
    setsid unshare "${APART[@]}" "$SELF" __node "$DIR" "$1" </dev/null >>"$DIR/log/$1" 2>&1 &
    wait_for test -s "$DIR/pid/$1"
    ip link add "to-$1" type veth peer name eth0 netns "$(pid "$1")"
    ip link set "to-$1" master br0 up
}

node() { # NODE
    become "$1"
    wait_for ip link show eth0
    ip addr add "$(address "$1")/24" dev eth0
    ip link set eth0 up
    slurmd -D -N "$1" -f "$DIR/slurm.conf" &
    wait
}

# ---- commands -----------------------------------------------------------------------------------------------------

enter() { # HOST COMMAND...
    local host=$1
    shift
    set -- bash -c 'cd "$0" && exec "$@"' "$PWD" "$@"
    [ "$host" = ctl ] || set -- "${INSIDE[@]}" "$(pid "$host")" "$@"
    SLURM_CONF=$DIR/slurm.conf exec "${INSIDE[@]}" "$(pid ctl)" "$@"
}

[ $# -ge 3 ] || { sed -n '2,16s/^# \{0,1\}//p' "$SELF"; exit 2; }
command=$1 DIR=$(realpath -m "$2") host=$3
case $command in
up) configure "$3" "$4" && exec unshare "${APART[@]}" "$SELF" __controller "$DIR" "$3" ;;
exec) shift 2 && enter "$@" ;;
start) enter ctl "$SELF" __power "$DIR" "$host" ;;
crash) enter ctl kill -KILL "$(pid "$host")" ;;
kill) enter ctl bash -c 'ip link set "to-$0" down && kill -KILL "$1"' "$host" "$(pid "$host")" ;;
cut) enter ctl ip link set "to-$host" down ;;
join) enter ctl ip link set "to-$host" up ;;
__controller) controller "$3" ;;
__power) power "$3" ;;
__node) node "$3" ;;
*) echo "cluster: no command $command" >&2 && exit 2 ;;
esac
