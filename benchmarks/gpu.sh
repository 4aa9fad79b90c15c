#!/bin/bash
# What a GPU gives, in at most ten minutes: seconds, memory and compiling of a step on four spaces beside PyTorch, an
# epoch of search on each, and four seeds as one program beside one seed.
#
#   pip install -r requirements-cuda.txt     (and torch, for the comparison: it is left out where it is missing)
#   benchmarks/gpu.sh OUT [DATA]             DATA: a TFDS data dir with CIFAR-10; without, images of noise
#   SIZE=tiny benchmarks/gpu.sh OUT          the same on a CPU, small, to see that it works
#
# OUT gets step_SPACE.json, a run folder for every search, log.txt, and summary.md, which is printed. A part that fails
# or takes more than its share of the time is told and left out. PYTHON chooses the interpreter.
set -u
out=${1:?the folder for what is measured}
data=${2:-}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.." || exit 2
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
end=$((SECONDS + 600)) slower=1

if [ "${SIZE:-}" = tiny ]; then
  step=(--device cpu --cells 3 --channels 4 --side 8 --batch 8 --rounds 1 --steps 1)
  search=(--config.batch_size=8 --config.space.channels=4 --config.data.name=synthetic --config.data.image_size=8
          --config.data.num_train=64 --config.pretrain.epochs=0.5 --config.devices=1)
  cells=3 slower=10
  end=$((SECONDS + 6000))
  export VIMNAS_JAX_KERNELS=0
else
  step=(--device gpu --rounds 2 --steps 10)
  search=(--config.devices=1)
  cells=0
  if [ -n "$data" ]; then
    search+=("--config.data.dir=$data")
  else
    search+=(--config.data.name=synthetic --config.data.image_size=32 --config.data.num_train=50000)
  fi
fi
forms=fused
"$python" -c 'import torch' 2> /dev/null && forms=fused,torch

# run SECONDS NAME COMMAND...: what the command says goes into log.txt
run() {
  local most=$(($1 * slower)) name=$2
  shift 2
  local left=$((end - SECONDS))
  [ "$left" -gt 10 ] || { echo "$name: no time was left" | tee -a "$out/log.txt"; return; }
  [ "$most" -lt "$left" ] || most=$left
  echo "== $name: $*" >> "$out/log.txt"
  timeout -k 10 "$most" "$@" >> "$out/log.txt" 2>&1 || echo "$name: failed or took over $most s" | tee -a "$out/log.txt"
}

"$python" -c 'import jax; print(*jax.devices(), sep="\n")' > "$out/device.txt" 2>> "$out/log.txt" || exit 2
steps() {
  local space own
  for space in "$@"; do
    own=()
    [ "$cells" = 3 ] && [ "$space" = nb201 ] && own=(--cells 1)
    run 120 "step_$space" "$python" -m benchmarks.step --space "$space" "${step[@]}" "${own[@]}" --forms "$forms" \
      --torch-layout channels_last --torch-compile --out "$out/step_$space"
  done
}

steps nb201 darts
for config in nb201_c10 darts_c10 simplified_c10:s2 oneshot_c10:space1; do
  own=(--config.epochs=1)
  if [ "$cells" = 3 ]; then
    [ "$config" = nb201_c10 ] && own+=(--config.space.cells=1) || own+=(--config.space.cells=3)
  fi
  run 90 "search ${config%%:*}" "$python" -m vimnas_jax.main "--config=$config" "${search[@]}" "${own[@]}" \
    "--workdir=$out/${config%%:*}"
done
own=(--config.epochs=0.2 --config.pretrain.epochs=0.1 --config.supernet_images=64)
[ "$cells" = 3 ] && own=(--config.epochs=1 --config.supernet_images=8 --config.space.cells=1)
run 60 'one seed' "$python" -m vimnas_jax.main --config=nb201_c10 "${search[@]}" "${own[@]}" "--workdir=$out/one_seed"
run 90 'four seeds at once' "$python" -m vimnas_jax.main --config=nb201_c10 "${search[@]}" "${own[@]}" \
  '--config.seeds=(0,1,2,3)' --config.at_once "--workdir=$out/four_seeds"
steps s1 oneshot1
run 60 step_darts_bfloat16 "$python" -m benchmarks.step --space darts "${step[@]}" --forms fused --dtype bfloat16 \
  --out "$out/step_darts_bfloat16"
"$python" -m benchmarks.gpu "$out" | tee "$out/summary.md"
