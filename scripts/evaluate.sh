#!/usr/bin/env bash
# Samples, predicts and scores the runs of one method, and the base model once; what is done is skipped.
#   bash scripts/evaluate.sh METHOD TARGET...   MODEL, CONFIG, RUNS, DATA, PROTOCOL, KEEP may be set in the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
[[ $# -gt 1 ]] || refuse "name a method and its targets, as in: bash scripts/evaluate.sh esd Sketch Cats"
method=$1 runs=${RUNS:-runs}; shift
python -m machine_unlearning.evaluate --model "${MODEL:-checkpoints/mini}" --runs "${@/#/$runs/$method/}" \
    ${CONFIG:+--config "$CONFIG"} ${DATA:+--data "$DATA"} ${PROTOCOL:+--protocol "$PROTOCOL"} ${KEEP:+--keep "$KEEP"}
