#!/bin/bash
# A training job on the nodes that Slurm has given: `job.sh --config FILE --run FOLDER ...`, all of it launch.train's.
# Called by the batch scripts beside it; this shell runs on the job's first node.
#
# When Slurm (at the time limit, or for a job that matters more) or a person sends USR1, the ranks save and stop, and
# the job goes back into the queue. Where a node dies, or Slurm preempts without a word, Slurm requeues the job itself.
# Either way the run goes on from its newest checkpoint.
set -u
cd "$SLURM_SUBMIT_DIR" || exit 2
[ ! -d .venv ] || PATH=$PWD/.venv/bin:$PATH
export P2P_HEAD P2P_PORT

# The address of this node as the others see it: the one from which it would call the second node. Its own name is no
# help, Debian makes that 127.0.1.1.
first_address() {
    local second
    second=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 2p)
    [ -n "$second" ] || { echo 127.0.0.1 && return; }
    second=$(scontrol show node "$second" --oneliner | sed -n 's/.* NodeAddr=\([^ ]*\) .*/\1/p')
    second=$(getent ahostsv4 "$second" | sed -n '1s/ .*//p')
    ip -4 route get "$second" | sed -n 's/.* src \([0-9.]*\).*/\1/p'
}

run_folder() { # the last --run counts, as for launch.train
    local before="" word folder=""
    for word in "$@"; do
        [ "$before" != --run ] || folder=$word
        [[ $word != --run=* ]] || folder=${word#--run=}
        before=$word
    done
    echo "$folder"
}

# The last task of an array has the whole array's number for its own; by that name all tasks would be signalled.
job=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

# To the ranks, again and again: one that is just starting does not listen yet.
pass_on() {
    echo "job $job was told to stop; it saves, and goes back into the queue"
    while kill -0 $$; do
        scancel --signal=USR1 "$job"
        sleep 10
    done 2>/dev/null &
}
trap pass_on USR1

P2P_HEAD=$(first_address)
[ -n "$P2P_HEAD" ] || {
    echo "p2p: $(hostname) knows no way to the second node of $SLURM_JOB_NODELIST; check NodeAddr and routes" >&2
    exit 2
}
P2P_PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs may share the node
echo "job $job, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST, rendezvous $P2P_HEAD:$P2P_PORT"

run=$(run_folder "$@")
before=$(cat "$run/status.json" 2>/dev/null)

# --no-kill: where the job was submitted with it too, a lost node ends neither the job nor this step.
srun --kill-on-bad-exit=1 --no-kill --export=ALL --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    bash slurm/node.sh "$@" &
step=$!
while kill -0 "$step" 2>/dev/null; do wait "$step"; done # a signal ends the waiting, not the step
wait "$step"
code=$?

# The run itself knows whether it was stopped and is to be gone on with; Slurm does not, where its SIGTERM before a
# preemption has ended the step in good time. Only this start's word counts: a mistake (2), or a start that did not come
# so far, would be made again for ever.
if [ "$code" != 2 ] && [ "$(cat "$run/status.json" 2>/dev/null)" != "$before" ]; then
    python -m launch.status "$run"
    [ $? -ne 3 ] || exec scontrol requeue "$job"
fi
exit "$code"
