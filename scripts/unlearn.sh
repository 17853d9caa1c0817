#!/usr/bin/env bash
# Unlearns each target with one method; finished runs are skipped.
#   bash scripts/unlearn.sh METHOD TARGET...   MODEL, CONFIG, DATA, RUNS, FLAGS (for train.py): from the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
need_method machine_unlearning train.py "${1:-}"
method=$1; shift
[[ $# -gt 0 ]] || refuse "name a target at least, as in: bash scripts/unlearn.sh $method Sketch Cats"
for target in "$@"; do
    python -m "machine_unlearning.$method.train" --target "$target" --model "${MODEL:-checkpoints/mini}" \
        --out "${RUNS:-runs}/$method/$target" ${CONFIG:+--config "$CONFIG"} ${DATA:+--data "$DATA"} ${FLAGS:-}
done
