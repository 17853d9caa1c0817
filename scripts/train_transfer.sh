#!/usr/bin/env bash
# Trains one style-transfer method; a stopped training goes on. Its weights go to RUNS/train/METHOD, or to --out.
#   bash scripts/train_transfer.sh METHOD [FLAGS of style_transfer.train] [key=value ...]   DATA, RUNS may be set in the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
need_method style_transfer train.py "${1:-}"
method=$1; shift
python -m style_transfer.train "$method" ${DATA:+--data "$DATA"} --out "${RUNS:-runs}/train/$method" "$@"
