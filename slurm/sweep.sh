#!/bin/bash
# Several runs that differ: `sbatch --array=1-4 slurm/sweep.sh sweep.txt --config configs/facades.yaml`.
# Task 3 takes the third line of sweep.txt, such as `--set task.l1=10`, and trains into runs/sweep/3.
#SBATCH --job-name=sweep --output=%x-%A_%a.out --open-mode=append
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=24:00:00 --requeue --signal=B:USR1@120
task=${SLURM_ARRAY_TASK_ID:?p2p: sweep.sh is for sbatch --array=1-N}
cd "$SLURM_SUBMIT_DIR" || exit 2
mapfile -t lines <"${1:?p2p: give sweep.sh a file with one line of arguments for each task}" || exit 2
[ "$task" -ge 1 ] && [ "$task" -le ${#lines[@]} ] || {
    echo "p2p: $1 has ${#lines[@]} lines, none for task $task; submit with --array=1-${#lines[@]}" >&2
    exit 2
}
read -ra arguments <<<"${lines[task - 1]}"
name=$(basename "$1" .txt)
shift
exec bash slurm/job.sh --run "runs/$name/$task" "$@" "${arguments[@]}"
