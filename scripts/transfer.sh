#!/usr/bin/env bash
# Style transfer over the benchmark with one method; what is done is skipped, and several may run at once.
#   bash scripts/transfer.sh METHOD [FLAGS of transfer.py]   WEIGHTS, DATA, PROTOCOL, RUNS may be set in the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
method=$1; shift
protocol=(${PROTOCOL:+--protocol "$PROTOCOL"})
python -m "style_transfer.$method.transfer" --weights "${WEIGHTS:-checkpoints/style_transfer/$method}" \
    --data "${DATA:-mini}" "${protocol[@]}" --out "${RUNS:-runs}/style_transfer/$method" "$@"
