#!/bin/bash
# Edges to handbags: `sbatch slurm/train_edges2handbags.sh` from the top of the repository. This is about machines only;
# what follows the file goes to launch.train: `sbatch --nodes=2 slurm/train_edges2handbags.sh --set data.batch=8`.
#SBATCH --job-name=edges2handbags --output=%x-%j.out --open-mode=append
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=24:00:00 --requeue --signal=B:USR1@120
exec bash "$SLURM_SUBMIT_DIR/slurm/job.sh" --config configs/edges2handbags.yaml --run runs/edges2handbags "$@"
