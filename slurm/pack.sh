#!/bin/bash
# Pack pairs into shards: `sbatch slurm/pack.sh photos data/photos data/bags --val 200`, arguments as of shards.pack.
# Interrupted, it goes on where it was.
#SBATCH --job-name=pack --output=%x-%j.out --open-mode=append
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=16
#SBATCH --time=24:00:00 --requeue
cd "$SLURM_SUBMIT_DIR" || exit 2
[ ! -d .venv ] || PATH=$PWD/.venv/bin:$PATH
# Right behind the form of source, so that a --processes of the caller's comes later and counts.
exec python -m shards.pack "${1---help}" --processes "$SLURM_CPUS_ON_NODE" "${@:2}"
