#!/usr/bin/env bash
# What needs a GPU, as one command of at most eight minutes on a bare machine with torch: `tests/gpu.sh [REPORT.json]`.
# `DEVICE=cpu tests/gpu.sh` rehearses it. What it finds is written after each part: an interruption loses none.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" tests/gpu_check.py --device "${DEVICE:-cuda:0}" --seconds "${SECONDS_AT_MOST:-460}" "${1:-gpu.json}"
