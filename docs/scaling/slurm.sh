#!/bin/bash
# Fine-tunes on the GPUs of several nodes:  FOLDER=/shared/ppvit sbatch docs/scaling/slurm.sh
# Submit it in the project's folder. This folder and FOLDER must be on a file system that all nodes share, and FOLDER must
# contain adapted.npz and encrypted/. A job that was killed or requeued resumes, also on another number of nodes.
#SBATCH --job-name=ppvit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

: "${FOLDER:?set FOLDER to the shared folder with adapted.npz and encrypted/}"
source .venv/bin/activate
export JAX_COMPILATION_CACHE_DIR="$FOLDER/compilation_cache"
# Gives a process all GPUs of its node. Without this variable, JAX gives each Slurm task one GPU, the one with the task's
# number on the node; remove it if you set --ntasks-per-node=8.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
export JAX_LOCAL_DEVICE_IDS

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    python -m ppvit_jax.main --distributed \
    --config=configs/cloud.py --workdir="$FOLDER/run" \
    --config.checkpoint="$FOLDER/adapted.npz" --config.data.dir="$FOLDER/encrypted" \
    --config.dtype=bfloat16 --config.sharding=data_parallel \
    --config.batch_size=512 --config.optimizer.learning_rate=0.016 --config.optimizer.warmup_steps=100
