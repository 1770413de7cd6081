#!/bin/bash
# Any recipe by its name: `sbatch slurm/train.sh cityscapes_512p` from the top of the repository. This is about machines
# only; what follows the name goes to launch.train: `sbatch --nodes=2 slurm/train.sh cityscapes_512p --set data.batch=8`.
#SBATCH --job-name=p2p --output=%x-%j.out --open-mode=append
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8
#SBATCH --time=48:00:00 --requeue --signal=B:USR1@120
: "${1:?name a recipe of configs/, for instance: sbatch slurm/train.sh cityscapes_512p}"
exec bash "$SLURM_SUBMIT_DIR/slurm/job.sh" --config "configs/$1.yaml" --run "runs/$1" "${@:2}"
