#!/bin/bash
# What a lent GPU can do, in twelve minutes and without a network: `rvlib bench gpu` on the shapes of an 8B model and of
# SmolLM2-135M, then small-4.1 with several trainings at once, as far as it comes in the time that is left.
#
#     benchmarks/gpu.sh FOLDER OUT
#
# FOLDER may have wheels/, of packages that the machine's Python lacks (`pip wheel -w FOLDER/wheels -r …` fills it
# elsewhere; they are installed without their dependencies, into a folder that is deleted), and data/, an $RVLIB_DATA in
# which the recipe's prompts lie. OUT gets JSONs and log.txt, and no weights. In the environment:
#
#     PYTHON=python3      that has PyTorch                JOBS=7      trainings at once
#     RECIPE=small-4.1    that is run                     LIMIT=690   seconds until the last is stopped
#     TINY=1              the same on a CPU with the model `tiny`, for a test of this script
set -u
if [ $# -ne 2 ]; then echo "usage: benchmarks/gpu.sh FOLDER OUT" >&2; exit 2; fi
LENT=$(realpath "$1"); mkdir -p "$2"; OUT=$(realpath "$2"); ROOT=$(realpath "$(dirname "$0")/..")
PYTHON=${PYTHON:-python3} RECIPE=${RECIPE:-small-4.1} JOBS=${JOBS:-7} LIMIT=${LIMIT:-690} TINY=${TINY:-}
WORK=$(mktemp -d); trap 'rm -rf "$WORK"' EXIT
export PYTHONPATH=$ROOT:$WORK/site HF_HUB_OFFLINE=1
if [ -d "$LENT/data" ]; then export RVLIB_DATA=$LENT/data; else export RVLIB_DATA=$WORK/data; fi
exec > >(tee "$OUT/log.txt") 2>&1

limited() { # SECONDS COMMAND…: stopped as by Ctrl-C after so many seconds, or when LIMIT is reached
    local left=$((LIMIT - SECONDS)) most=$1; shift
    if [ "$left" -lt 10 ]; then echo "No time is left for: $*"; return; fi
    echo "== $SECONDS s: $*"
    timeout --foreground --signal=INT --kill-after=20 $((left < most ? left : most)) "$@" || echo "Ended with status $?: $*"
}

if compgen -G "$LENT/wheels/*.whl" > /dev/null; then
    limited 120 "$PYTHON" -m pip install --no-index --no-deps --disable-pip-version-check --target "$WORK/site" "$LENT"/wheels/*.whl
fi
if [ -n "$TINY" ]; then
    JOBS=2
    limited 120 "$PYTHON" -m rvlib bench cpu --model tiny --recipe tiny-4.1 --minutes 1 --out "$OUT/cpu-tiny.json" \
        --set policy_gradient.max_new_tokens=8 --set policy_gradient.batch_size=8
else
    GB=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_properties(0).total_memory // 10**9)')
    FEWER=(); [ "$GB" -ge 130 ] || FEWER=(--layers 16) # of 32: policy, reference, reward model and moments of all take 97 GB
    limited 360 "$PYTHON" -m rvlib bench gpu --model llama-3.1-8b "${FEWER[@]}" --out "$OUT/gpu-llama-3.1-8b.json"
    limited 120 "$PYTHON" -m rvlib bench gpu --model smollm2-135m --out "$OUT/gpu-smollm2-135m.json"
fi
NAME=$(basename "$RECIPE" .yaml) AUTO=()
for field in micro_batch batch_size gradient_checkpointing; do AUTO+=(--set "runtime.$field=auto"); done
limited "$LIMIT" "$PYTHON" -m rvlib run "$RECIPE" --jobs "$JOBS" --folder "$WORK/$NAME" --set 'seeds=[0]' "${AUTO[@]}"
(cd "$WORK" && find "$NAME" \( -name '*.json' -o -name '*.jsonl' -o -name report.html \) -not -path '*/model/*' \
    -exec cp --parents {} "$OUT" \;)
echo "== $SECONDS s: results are in $OUT"
