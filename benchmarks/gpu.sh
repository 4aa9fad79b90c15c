#!/bin/bash
# What a GPU gives, in at most ten minutes: seconds, memory and compiling of a step on two spaces beside PyTorch, four
# seeds as one program beside one seed, and a search on each of four spaces.
#
#   pip install -r requirements-cuda.txt     (and torch, for the comparison: it is left out where it is missing)
#   benchmarks/gpu.sh OUT [DATA]             DATA: a TFDS data dir with CIFAR-10; without, images of noise
#   SIZE=tiny benchmarks/gpu.sh OUT          the same on a CPU, small, to see that it works
#
# First everything is compiled, side by side on all cores; then it is timed, one after the other. OUT gets
# step_SPACE.json, a run folder for every search, log.txt, and summary.md, which is printed. A part that fails or takes
# more than its share of the time is told and left out. PARTS (of "steps seeds searches"), SPACES (whose steps are timed;
# s1 to s4 and oneshot1 to 3 can be), SECONDS_IN_ALL and PYTHON choose the parts, the time and the interpreter.
set -u
out=${1:?the folder for what is measured}
data=${2:-}
python=${PYTHON:-python3}
parts=${PARTS:-steps seeds searches} spaces=${SPACES:-nb201 darts}
cd "$(dirname "$0")/.." || exit 2
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/cache}" XLA_PYTHON_CLIENT_PREALLOCATE=false
end=$((SECONDS + ${SECONDS_IN_ALL:-600})) slower=1 compiling=${COMPILE_SECONDS:-300}

if [ "${SIZE:-}" = tiny ]; then
  step=(--device cpu --cells 3 --channels 4 --side 8 --batch 8)
  search=(--config.batch_size=8 --config.space.channels=4 --config.data.name=synthetic --config.data.image_size=8
          --config.data.num_train=64 --config.pretrain.epochs=0.5 --config.epochs=1 --config.devices=1)
  cells=3 slower=10 count=1 batch=1
  end=$((SECONDS + 6000))
  export VIMNAS_JAX_KERNELS=0
else
  step=(--device gpu)
  search=(--config.devices=1)
  cells=0 count=30 batch=64
  if [ -n "$data" ]; then
    search+=("--config.data.dir=$data")
  else
    search+=(--config.data.name=synthetic --config.data.image_size=32 --config.data.num_train=50000)
  fi
fi
torch=
"$python" -c 'import torch' 2> /dev/null && torch=yes
"$python" -c 'import jax; print(*jax.devices(), sep="\n")' > "$out/device.txt" 2>> "$out/log.txt" || exit 2

# run SECONDS NAME COMMAND...: what the command says goes into OUT/NAME.log, and from there into log.txt
run() {
  local most=$(($1 * slower)) name=$2 left=$((end - SECONDS))
  shift 2
  [ "$left" -gt 10 ] || { echo "$name: no time was left" | tee -a "$out/log.txt"; return; }
  [ "$most" -lt "$left" ] || most=$left
  { echo "== $name: $*"; timeout -k 10 "$most" "$@" 2>&1 || echo "$name: failed or took over $most s" >&2
  } > "$out/$name.log" 2> >(tee -a "$out/log.txt" >&2)
  cat "$out/$name.log" >> "$out/log.txt"
}

# one_step SECONDS NAME SPACE STEPS FORMS OPTION...: benchmarks.step
one_step() {
  local most=$1 name=$2 space=$3 steps=$4 forms=$5 own=()
  shift 5
  [ "$cells" = 3 ] && [ "$space" = nb201 ] && own=(--cells 1)
  run "$most" "$name" "$python" -m benchmarks.step --space "$space" "${step[@]}" "${own[@]}" --rounds 1 \
    --steps "$steps" --forms "$forms" --cache "$JAX_COMPILATION_CACHE_DIR" --out "$out/$name" "$@"
}

# plain SPACE: the other forms of a depthwise convolution that are worth a try there
plain() {
  [ "${SIZE:-}" = tiny ] || [ "$1" = nb201 ] || echo shifted taps mixed
}

# a_search SECONDS NAME CONFIG FIELD...
a_search() {
  local most=$1 name=$2 config=$3 own=()
  shift 3
  [ "$cells" = 3 ] && own=(--config.space.cells=3)
  [ "$cells" = 3 ] && [ "$config" = nb201_c10 ] && own=(--config.space.cells=1)
  run "$most" "$name" "$python" -m vimnas_jax.main "--config=$config" "${search[@]}" "${own[@]}" "$@" \
    "--workdir=$out/$name"
}

seeds=('--config.seeds=(0,1,2,3)' --config.at_once --config.supernet_images=64)
[ "$cells" = 3 ] && seeds=('--config.seeds=(0,1,2,3)' --config.at_once --config.supernet_images=8)
short=(--config.epochs=0.3 --config.pretrain.epochs=0.1)
[ "$cells" = 3 ] && short=()
if [[ $parts == *steps* ]]; then
  for space in $spaces; do
    one_step "$compiling" "cold_$space" "$space" 1 fused &
    for form in $(plain "$space"); do one_step "$compiling" "cold_${form}_$space" "$space" 1 "$form" & done
    [ -z "$torch" ] || one_step "$compiling" "cold_torch_$space" "$space" 1 torch --torch-layout channels_last --torch-compile &
  done
  [[ $spaces != *darts* ]] || one_step "$compiling" cold_darts_bfloat16 darts 1 fused --dtype bfloat16 &
fi
if [[ $parts == *seeds* ]]; then
  a_search "$compiling" one_seed nb201_c10 "${short[@]}" --config.dry_run &
  a_search "$compiling" cold_seeds nb201_c10 "${short[@]}" "${seeds[@]}" &
fi
wait
if [[ $parts == *steps* ]]; then
  run 60 depthwise "$python" -m benchmarks.depthwise "$out/depthwise.json" "$batch"
  for space in $spaces; do
    forms=fused
    for form in $(plain "$space"); do [ ! -e "$out/cold_${form}_$space.json" ] || forms+=,$form; done
    one_step 90 "step_$space" "$space" "$count" "$forms${torch:+,torch}" --torch-layout channels_last
    [ ! -e "$out/cold_torch_$space.json" ] || one_step 60 "compiled_$space" "$space" "$count" torch --torch-layout channels_last \
      --torch-compile
  done
  [[ $spaces != *darts* ]] || one_step 60 step_darts_bfloat16 darts "$count" fused --dtype bfloat16
fi
if [[ $parts == *seeds* ]]; then
  rm -rf "$out/cold_seeds"
  a_search 60 one_seed nb201_c10 "${short[@]}"
  a_search 90 four_seeds nb201_c10 "${short[@]}" "${seeds[@]}"
fi
if [[ $parts == *searches* ]]; then
  for config in nb201_c10 darts_c10 simplified_c10:s2 oneshot_c10:space1; do
    a_search 120 "${config%%_*}" "$config" --config.epochs=1 --config.pretrain.epochs=1
  done
fi
rm -rf "$out/cache"
"$python" -m benchmarks.gpu "$out" | tee "$out/summary.md"
