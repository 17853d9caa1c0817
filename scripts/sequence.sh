#!/usr/bin/env bash
# Forgets targets in turn with one method, each run going on from the one before, and judges every model on the way.
#   bash scripts/sequence.sh METHOD T1 T2 ...      MODEL, CONFIG, DATA, PROTOCOL, RUNS, WORKERS, FLAGS (for train.py) may be set. Resumable.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
need_method machine_unlearning train.py "${1:-}"
method=$1 runs=${RUNS:-runs}; shift
[[ $# -gt 1 ]] || refuse "name two targets at least, as in: bash scripts/sequence.sh $method Sketch Cats"
IFS='~'; chain="$*"; unset IFS
python -m scripts.sweep --methods "$method" --targets "$chain" --model "${MODEL:-checkpoints/mini}" --out "$runs" \
    ${CONFIG:+--config "$CONFIG"} ${DATA:+--data "$DATA"} ${PROTOCOL:+--protocol "$PROTOCOL"} \
    ${WORKERS:+--workers "$WORKERS"} ${FLAGS:+--flags="$FLAGS"}
python -m evaluation.tables "$runs" --sequential
