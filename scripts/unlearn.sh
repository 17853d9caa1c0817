#!/usr/bin/env bash
# Unlearns each target with one method; finished runs are skipped.
#   bash scripts/unlearn.sh METHOD TARGET...   MODEL, CONFIG, DATA, RUNS, FLAGS (for train.py): from the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
method=$1; shift
for target in "$@"; do
    python -m "machine_unlearning.$method.train" --target "$target" --model "${MODEL:-checkpoints/mini}" \
        --out "${RUNS:-runs}/$method/$target" ${CONFIG:+--config "$CONFIG"} ${DATA:+--data "$DATA"} ${FLAGS:-}
done
