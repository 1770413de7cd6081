#!/bin/bash
# Aerial photo to map: `sbatch slurm/train_maps.sh` from the top of the repository. This is about machines only;
# what follows the file goes to launch.train: `sbatch --nodes=2 slurm/train_maps.sh --set data.batch=8`.
#SBATCH --job-name=maps --output=%x-%j.out --open-mode=append
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=08:00:00 --requeue --signal=B:USR1@120
exec bash "$SLURM_SUBMIT_DIR/slurm/job.sh" --config configs/maps.yaml --run runs/maps "$@"
