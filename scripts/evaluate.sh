#!/usr/bin/env bash
# Samples, predicts and scores the runs of one method, and the base model once; what is done is skipped.
#   bash scripts/evaluate.sh METHOD TARGET...   MODEL, CONFIG, RUNS, DATA, PROTOCOL may be set in the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
method=$1; shift
runs=${RUNS:-runs} data=${DATA:-mini}
model=(--model "${MODEL:-checkpoints/mini}" ${CONFIG:+--config "$CONFIG"})
protocol=(${PROTOCOL:+--protocol "$PROTOCOL"})
python -m machine_unlearning.sample "${model[@]}" "${protocol[@]}" --out "$runs/base/answers"
python -m evaluation.predict "$runs/base/answers"
python -m evaluation.fid "$runs/base/answers" --data "$data"
for target in "$@"; do
    answers=$runs/$method/$target/answers
    python -m machine_unlearning.sample "${model[@]}" --run "$runs/$method/$target" "${protocol[@]}" --out "$answers"
    python -m evaluation.predict "$answers"
    python -m evaluation.fid "$answers" --data "$data"
    python -m evaluation.accuracy "$answers" --target "$target" --base "$runs/base/answers"
done
