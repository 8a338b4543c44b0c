#!/bin/bash
# What a machine with an NVIDIA device can say of catchmark in nine minutes. It installs nothing: PYTHON has the package.
#
#   bash experiments/benchmarks/gpu.sh cifar10.npz [OUT]
#
# cifar10.npz: the whole data set ('catchmark data cifar10' makes it). OUT (default: runs/gpu) holds what was measured,
# and the training that a later call with the same OUT goes on with. Variables: PYTHON (default: python), GPU_SECONDS
# (default: 540), GPU_TOY=1 for a walk of seconds through all of it on a processor.
set -u

arrays=$(realpath -- "${1:?which cifar10.npz}") || exit 2
out=${2:-runs/gpu}
seconds=${GPU_SECONDS:-540}
python=${PYTHON:-python}
began=$SECONDS
mkdir -p -- "$out" && out=$(realpath -- "$out") || exit 2
cd "$(dirname "$0")/../.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" WANDB_MODE="${WANDB_MODE:-disabled}"

if [ -z "${GPU_TOY:-}" ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no NVIDIA device"
    # Tests that look at the device; what they find does not end this script.
    timeout --kill-after=5 90 "$python" -m pytest -q --no-header -p no:cacheprovider \
        tests/lightning_modules/networks/cost/test_latency.py tests/search/tasks/test_measured_latency.py \
        2>&1 | tail -n 5
fi

left=$((seconds - (SECONDS - began)))
# The inner limit lets a training close its checkpoint; the outer one is for what hangs.
timeout --kill-after=5 "$left" "$python" experiments/benchmarks/gpu.py "$arrays" "$out" \
    --seconds "$((left - left / 20))" ${GPU_TOY:+--toy}
code=$?
[ "$code" -eq 130 ] && echo "stopped by its time limit: the same command goes on with the training" && code=0
exit "$code"
