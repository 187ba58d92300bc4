#!/usr/bin/env bash
# What needs a GPU, as one command of at most eight minutes: `tests/gpu.sh [REPORT.json]`; `DEVICE=cpu tests/gpu.sh`
# rehearses it. It runs from the checkout, with the torch that is there, and says first which other packages are missing.
# What it finds is written after each piece: an interruption loses none, and the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" tests/gpu_check.py --device "${DEVICE:-cuda:0}" --seconds "${SECONDS_AT_MOST:-460}" "${1:-gpu.json}"
