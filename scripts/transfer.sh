#!/usr/bin/env bash
# Style transfer over the benchmark with one method; what is done is skipped, and several may run at once.
#   bash scripts/transfer.sh METHOD [FLAGS of transfer.py]   WEIGHTS, DATA, PROTOCOL, RUNS may be set in the environment,
#   and NAME, of the folder of the outputs, if it is not the method's
set -euo pipefail
source "$(dirname "$0")/setup.sh"
need_method style_transfer model.py "${1:-}"
method=$1 name=${NAME:-$1}; shift
data=${DATA:-mini} shipped=checkpoints/style_transfer
[[ $data != mini ]] || shipped=checkpoints/mini/style_transfer
python -m style_transfer.transfer "$method" --weights "${WEIGHTS:-$shipped/$name}" --data "$data" \
    ${PROTOCOL:+--protocol "$PROTOCOL"} --out "${RUNS:-runs}/style_transfer/$name" "$@"
