#!/bin/bash
# Day to night: `sbatch slurm/train_day2night.sh` from the top of the repository. This is about machines only;
# what follows the file goes to launch.train: `sbatch --nodes=2 slurm/train_day2night.sh --set data.batch=8`.
#SBATCH --job-name=day2night --output=%x-%j.out --open-mode=append
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=24:00:00 --requeue --signal=B:USR1@120
exec bash "$SLURM_SUBMIT_DIR/slurm/job.sh" --config configs/day2night.yaml --run runs/day2night "$@"
