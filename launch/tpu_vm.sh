#!/bin/bash
# A search on all hosts of a Cloud TPU slice, one process a host.
#
#   ZONE=us-central2-b launch/tpu_vm.sh NAME --config=darts_imagenet --config.data.dir=DIR --workdir=DIR
#
# NAME is the TPU VM. DIR and the checkout (CHECKOUT, ~/vimnas_jax unless given) with its .venv (requirements.txt and
# `jax[tpu]`) lie on a disk that all hosts mount. After a preemption the same line goes on.
set -euo pipefail

tpu=${1:?"give the name of the TPU VM, then the flags of vimnas_jax.main"}
shift
flags=$(printf ' %q' "$@")
# What the metadata server of each host says: its number, and the addresses of all, as a:b:ADDRESS,a:b:ADDRESS.
# shellcheck disable=SC2016
each='
set -eu
attribute() { curl -s -H "Metadata-Flavor: Google" "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }
all=$(attribute worker-network-endpoints)
export JAX_PROCESS_ID=$(attribute agent-worker-number)
export JAX_NUM_PROCESSES=$(tr "," "\n" <<< "$all" | wc -l)
export JAX_COORDINATOR_ADDRESS=$(cut -d, -f1 <<< "$all" | cut -d: -f3):21000
'
gcloud compute tpus tpu-vm ssh "$tpu" --zone="${ZONE:?"give the zone, ZONE=..."}" --worker=all --command="$each
cd ${CHECKOUT:-vimnas_jax} && exec .venv/bin/python -m vimnas_jax.main$flags"
