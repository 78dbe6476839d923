#!/usr/bin/env bash
# What a GPU has to show, in less than eight minutes: the tests marked gpu (with two GPUs, also that both do what one does), localization, and the speed and the
# memory of fine-tuning steps in float32, bf16 and fp16.
#
#     bash benchmarks/gpu.sh results/gpu                # JSON files with the device's name, and logs
#     TINY=1 bash benchmarks/gpu.sh /tmp/dry            # the same steps on a CPU at the smallest sizes
#
# A step that fails or takes too long doesn't stop the others; the exit status is the number of such steps.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?give a folder for the results}
mkdir -p "$out"
python=${PYTHON:-python}
failed=0

step() { # name, seconds, command …
    local name=$1 seconds=$2
    shift 2
    echo "== $name"
    if ! timeout "$seconds" "$@" >"$out/$name.log" 2>&1; then
        echo "failed, see $out/$name.log"
        failed=$((failed + 1))
    fi
    tr '\r' '\n' <"$out/$name.log" | tail -n 6
}

if [ -n "${TINY:-}" ]; then
    export MALP_DISC_TEST_DEVICE=cpu
fi
step tests 200 "$python" -m pytest -m gpu -n 0 tests/test_gpu.py -q
if [ -n "${TINY:-}" ]; then
    step localize 120 "$python" benchmarks/localize.py --sides 32 --batches 1 --rounds 1 --widths 8 --json "$out/localize.json"
    step finetune-no 240 "$python" benchmarks/finetune_step.py --steps 1 --rounds 1 --batch 2 --json "$out/finetune-no.json"
else
    step localize-128 40 "$python" benchmarks/localize.py --device cuda --sides 128 --batches 64 --rounds 10 --json "$out/localize-128.json"
    step localize-512 40 "$python" benchmarks/localize.py --device cuda --sides 512 --batches 16 --rounds 10 --json "$out/localize-512.json"
    for precision in no bf16 fp16; do
        step "finetune-$precision" 50 "$python" benchmarks/finetune_step.py --mixed-precision "$precision" --steps 5 --rounds 2 --json "$out/finetune-$precision.json"
    done
    step finetune-64 40 "$python" benchmarks/finetune_step.py --batch 64 --steps 3 --rounds 1 --json "$out/finetune-64.json"  # for the memory per image
fi
exit "$failed"
