#!/bin/bash
# What a lent GPU can do, in twelve minutes and without a network: `rvlib bench gpu` on the shapes of an 8B model and of
# SmolLM2-135M, then experiments with several trainings at once, as far as they come in the time that is left.
#
#     benchmarks/gpu.sh FOLDER OUT
#
# FOLDER may have wheels/, of packages that the machine's Python lacks (`pip wheel -w FOLDER/wheels -r …` fills it
# elsewhere; they are installed without their dependencies, into a folder that is deleted), and data/, an $RVLIB_DATA in
# which the recipe's prompts lie. OUT gets JSONs and log.txt, and no weights. In the environment:
#
#     PYTHON=python3                       that has PyTorch
#     MODELS='llama-3.1-8b smollm2-135m'   that are benched; '' for none
#     MINUTES=                             of each bench (its own default otherwise)
#     RECIPES='small-4.1 small-4.2'        that are run, one after the other; '' for none. After two benches there is
#                                          no time left for a whole one: MODELS='' RECIPES=small-4.1 LIMIT=3600 RUNS=runs (or
#                                          RECIPES=small-study), and the next call goes on with what is in RUNS
#     CHANGES=                             fields of the recipes, such as 'runtime.micro_batch=32 seeds=[0]'
#     JOBS=8                               trainings at once
#     RUNS=                                folder that keeps the runs, to go on with one later (otherwise they are deleted)
#     LIMIT=690                            seconds until the last is stopped
#     TINY=1                               the same on a CPU with the model `tiny`, for a test of this script
set -u
if [ $# -ne 2 ]; then echo "usage: benchmarks/gpu.sh FOLDER OUT" >&2; exit 2; fi
LENT=$(realpath "$1"); mkdir -p "$2"; OUT=$(realpath "$2"); ROOT=$(realpath "$(dirname "$0")/..")
PYTHON=${PYTHON:-python3} MODELS=${MODELS-llama-3.1-8b smollm2-135m} MINUTES=${MINUTES:-}
RECIPES=${RECIPES-small-4.1 small-4.2} JOBS=${JOBS:-8} LIMIT=${LIMIT:-690} TINY=${TINY:-}
WORK=$(mktemp -d) RUNS=${RUNS:-$WORK}
export PYTHONPATH=$ROOT:$WORK/site${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1
if [ -d "$LENT/data" ]; then export RVLIB_DATA=$LENT/data; else export RVLIB_DATA=$WORK/data; fi
exec > >(tee "$OUT/log.txt") 2>&1

limited() { # SECONDS COMMAND…: stopped as by Ctrl-C after so many seconds, or when LIMIT is reached
    local left=$((LIMIT - SECONDS)) most=$1; shift
    if [ "$left" -lt 10 ]; then echo "No time is left for: $*"; return; fi
    echo "== $SECONDS s: $*"
    timeout --foreground --signal=INT --kill-after=20 $((left < most ? left : most)) "$@" || echo "Ended with status $?: $*"
}

share_gpu() { # NVIDIA's multi-process service lets the kernels of several trainings run at the same time
    command -v nvidia-cuda-mps-control > /dev/null || return
    export CUDA_MPS_PIPE_DIRECTORY=$WORK/mps CUDA_MPS_LOG_DIRECTORY=$WORK/mps
    mkdir -p "$WORK/mps" && nvidia-cuda-mps-control -d
    if timeout 40 "$PYTHON" -c 'import torch; torch.zeros(1).cuda()'; then echo "Trainings share the GPU by MPS."; return; fi
    stop_sharing; unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

stop_sharing() { [ -z "${CUDA_MPS_PIPE_DIRECTORY:-}" ] || echo quit | timeout 10 nvidia-cuda-mps-control; }
trap 'stop_sharing; rm -rf "$WORK"' EXIT

if compgen -G "$LENT/wheels/*.whl" > /dev/null; then
    limited 120 "$PYTHON" -m pip install --no-index --no-deps --disable-pip-version-check --target "$WORK/site" "$LENT"/wheels/*.whl
fi
# Whether the engine graph works here, before anything that takes long. If not, one sentence says why.
ENGINE=()
echo "== $SECONDS s: the engine graph"
if timeout 100 "$PYTHON" "$ROOT/benchmarks/token_step.py" --check; then
    echo "The engine graph draws what the model says."
else
    echo "Everything is sampled by the engine generate."
    ENGINE=(--set runtime.engine=generate)
fi
if [ -n "$TINY" ]; then
    JOBS=2
    limited 120 "$PYTHON" -m rvlib bench cpu --model tiny --recipe tiny-4.1 --minutes 1 --out "$OUT/cpu-tiny.json" "${ENGINE[@]}" \
        --set policy_gradient.max_new_tokens=8 --set policy_gradient.batch_size=8
    MODELS=
fi
for model in $MODELS; do
    FEWER=(${MINUTES:+--minutes "$MINUTES"})
    if [ "$model" = llama-3.1-8b ]; then # policy, reference, reward model and moments of all 32 layers take 97 GB
        GB=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_properties(0).total_memory // 10**9)')
        [ "$GB" -ge 130 ] || FEWER+=(--layers 16)
    fi
    limited 360 "$PYTHON" -m rvlib bench gpu --model "$model" "${FEWER[@]}" "${ENGINE[@]}" --out "$OUT/gpu-$model.json"
done
[ -n "$TINY" ] || [ -z "$RECIPES" ] || share_gpu
for recipe in $RECIPES; do
    NAME=$(basename "$recipe" .yaml) SETTINGS=(--set runtime.save_every=1000 "${ENGINE[@]}")
    for field in micro_batch batch_size gradient_checkpointing; do SETTINGS+=(--set "runtime.$field=auto"); done
    for change in ${CHANGES:-}; do SETTINGS+=(--set "$change"); done
    limited "$LIMIT" "$PYTHON" -m rvlib run "$recipe" --jobs "$JOBS" --folder "$RUNS/$NAME" "${SETTINGS[@]}"
    (cd "$RUNS" && find "$NAME" \( -name '*.json' -o -name '*.jsonl' -o -name report.html \) -not -path '*/model/*' \
        -exec cp --parents {} "$OUT" \;)
done
echo "== $SECONDS s: results are in $OUT"
