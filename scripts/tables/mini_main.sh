#!/usr/bin/env bash
# The main table on the miniature: every method on the mini protocol's four styles and four objects.
#   bash scripts/tables/mini_main.sh [METHOD...]      TARGETS=all runs all 10 styles and 10 objects
# WORKERS (cells at once), RUNS, MODEL, DATA, FLAGS (for train.py) may be set in the environment. Resumable.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-runs/mini}
python -m scripts.sweep --methods "${@:-all}" --targets "${TARGETS:-targets}" --protocol mini \
    --model "${MODEL:-checkpoints/mini}" --data "${DATA:-mini}" --out "$runs" --workers "${WORKERS:-1}" \
    ${FLAGS:+--flags="$FLAGS"}
python -m evaluation.tables "$runs"
