#!/bin/bash
# What job.sh starts once on every node: torchrun, with as many ranks as the node has GPUs for the job.
set -u
# USR1 is for the ranks, which set a handler of their own; this shell and torchrun, which inherits what is ignored,
# would die of it. TERM is for torchrun as well: srun prefers the signal that killed one node's shell to the code by
# which another says what is wrong.
trap '' USR1
trap 'exit 1' TERM

# Whether the first node's torchrun listens. A refusal is an answer, from a node whose torchrun is still being loaded.
listens() {
    local answer
    answer=$(LC_ALL=C timeout 5 bash -c ": </dev/tcp/$P2P_HEAD/$P2P_PORT" 2>&1) && return
    [[ $answer != *refused* ]] || last=$SECONDS
    false
}

wait_for_first_node() {
    local last=$SECONDS
    until listens; do
        sleep 0.5
        if ((SECONDS - last >= 30)); then
            echo "p2p: $(hostname) cannot reach $P2P_HEAD:$P2P_PORT, the rendezvous of job $SLURM_JOB_ID, in 30 s;" \
                "the nodes must reach each other's ports 20000 to 65535" >&2
            exit 2
        fi
    done
}

[ "$SLURM_NODEID" = 0 ] || wait_for_first_node

# Neither torchrun nor gloo may look up this node's name, which may be unknown or 127.0.1.1: give both the address that
# leads to the first node, and the interface that carries it.
me=$(ip -4 route get "$P2P_HEAD" | sed -n 's/.* src \([0-9.]*\).*/\1/p')
interface=$(ip -4 -o addr show to "$me" | awk '{ print $2; exit }')
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface}
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-=$interface} # for NCCL eth1 means eth10 too, =eth1 does not

# Or PyTorch warns of addresses without a name, and at the end of every job that the first node has left first.
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}

# After a restart the ranks would meet in the first round's store, and find addresses of the dead there.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# From 1 node on: who has not come 30 s after the first is not waited for, who is silent for 15 s counts as gone, and
# who comes later is let in. agent.py is a torchrun that knows what not to repeat; not knowing that, a rank that found
# a mistake would end it by a signal.
python slurm/agent.py --nnodes="1:$SLURM_NNODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --max-restarts=10 \
    --rdzv-backend=c10d --rdzv-endpoint="$P2P_HEAD:$P2P_PORT" --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
    --rdzv-conf="is_host=$((SLURM_NODEID == 0)),join_timeout=120" --local-addr="$me" \
    --no-python -- env TORCHELASTIC_MAX_RESTARTS=0 python -u -m launch.train "$@"
