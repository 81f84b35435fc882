#!/bin/bash
# Fine-tunes on a Cloud TPU slice with several hosts. Set up gcloud, then run in the project's folder:
#   PROJECT=... ZONE=... TPU_NAME=... NFS=HOST:/SHARE docs/scaling/tpu_pod.sh create|install|train|delete
# The NFS share, for example from Filestore in the same network, must contain adapted.npz and encrypted/.
# To resume a run that was killed, run `train` again, also on a slice of another size.
set -euo pipefail

: "${PROJECT:?}" "${ZONE:?}" "${TPU_NAME:?}"
ACCELERATOR_TYPE=${ACCELERATOR_TYPE:-v6e-16}
RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv6e}
tpu=(gcloud compute tpus tpu-vm)
where=(--project="$PROJECT" --zone="$ZONE")

on_all_hosts() {
    "${tpu[@]}" ssh "$TPU_NAME" "${where[@]}" --worker=all --command="$1"
}

case ${1:-} in
create)
    "${tpu[@]}" create "$TPU_NAME" "${where[@]}" \
        --accelerator-type="$ACCELERATOR_TYPE" --version="$RUNTIME_VERSION"
    ;;
install)
    : "${NFS:?}"
    archive=$(mktemp -d)/ppvit_jax.tar.gz
    git archive --prefix=ppvit_jax/ --output="$archive" HEAD
    "${tpu[@]}" scp "$archive" "$TPU_NAME:ppvit_jax.tar.gz" "${where[@]}" --worker=all
    # The Python of the hosts may be older than 3.11, so uv installs another.
    on_all_hosts "set -e
        tar xzf ppvit_jax.tar.gz
        pip install --quiet --user uv
        ~/.local/bin/uv venv --clear --python 3.12 ppvit_jax/.venv
        ~/.local/bin/uv pip install --python ppvit_jax/.venv/bin/python ./ppvit_jax 'jax[tpu]'
        sudo apt-get install --yes --quiet nfs-common
        sudo mkdir -p /mnt/ppvit
        mountpoint --quiet /mnt/ppvit || sudo mount $NFS /mnt/ppvit"
    ;;
train)
    on_all_hosts "cd ppvit_jax && JAX_COMPILATION_CACHE_DIR=/mnt/ppvit/compilation_cache \
        .venv/bin/python -m ppvit_jax.main --distributed \
        --config=configs/cloud.py --workdir=/mnt/ppvit/run \
        --config.checkpoint=/mnt/ppvit/adapted.npz --config.data.dir=/mnt/ppvit/encrypted \
        --config.dtype=bfloat16 --config.sharding=data_parallel \
        --config.batch_size=512 --config.optimizer.learning_rate=0.016 --config.optimizer.warmup_steps=100"
    ;;
delete)
    "${tpu[@]}" delete "$TPU_NAME" "${where[@]}"
    ;;
*)
    echo "usage: $0 create|install|train|delete" >&2
    exit 1
    ;;
esac
