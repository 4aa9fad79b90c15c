#!/bin/bash
# One process for each GPU of an allocation; stopped, preempted or requeued, it goes on where it was.
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#       --config=darts_imagenet --config.data.dir=DIR --workdir=runs/imagenet
#
# --workdir lies on a file system that all nodes share. An array is a sweep, one job for each index: over seeds,
#
#   sbatch --array=0-3 launch/slurm.sh --config=nb201_c10 --config.data.dir=DIR --workdir=runs/seeds
#
# searches in runs/seeds/seed_0 to seed_3; with SWEEP=FILE index i takes line i, from 1, of FILE, 'NAME --flag=value ...',
# and searches in runs/seeds/NAME. The table of all, once they are done (--dependency=afterany:JOB):
#
#   python -m vimnas_jax.main --config=nb201_c10 --config.task=report --config.report.runs=runs/seeds --workdir=runs/table
#SBATCH --job-name=vimnas
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --signal=USR1@180
#SBATCH --open-mode=append
set -euo pipefail

python=${PYTHON:-.venv/bin/python}
flags=("$@")

if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  name=seed_$SLURM_ARRAY_TASK_ID
  more=("--config.seed=$SLURM_ARRAY_TASK_ID")
  if [[ -n "${SWEEP:-}" ]]; then
    mapfile -t line < <(sed -n "${SLURM_ARRAY_TASK_ID}p" "$SWEEP" | xargs -n1 printf '%s\n') # which knows quotes
    name=${line[0]:?"$SWEEP has no line $SLURM_ARRAY_TASK_ID"}
    more=("${line[@]:1}")
  fi
  below=
  for i in "${!flags[@]}"; do
    [[ "${flags[i]}" == --workdir=* ]] && flags[i]="${flags[i]}/$name" && below=yes
  done
  : "${below:?give --workdir=FOLDER: each job of an array searches in a folder of its own below it}"
  flags+=("${more[@]}")
fi

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
JAX_COORDINATOR_ADDRESS=${nodes%%$'\n'*}:$((20000 + SLURM_JOB_ID % 20000))
export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=${SLURM_NTASKS:-${SLURM_JOB_NUM_NODES:-1}} # unset where none was asked for: one a node

code=0
# Every process sees all GPUs of its node, as NCCL wants it, and computes on one.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 bash -c \
  'export JAX_PROCESS_ID=$SLURM_PROCID JAX_LOCAL_DEVICE_IDS=$SLURM_LOCALID; exec "$@"' - \
  "$python" -m vimnas_jax.main "${flags[@]}" || code=$?
# 75: stopped, all saved. Above 128 a signal killed a process, as the kernel does where memory is short: three times.
if [[ $code == 75 ]] || ((code > 128 && ${SLURM_RESTART_COUNT:-0} < 3)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
