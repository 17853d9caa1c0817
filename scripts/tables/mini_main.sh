#!/usr/bin/env bash
# The main table on the miniature: every method on the mini protocol's four styles and four objects.
#   bash scripts/tables/mini_main.sh [METHOD...]      TARGETS=all runs all 10 styles and 10 objects
# Resumable.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
export RUNS=${RUNS:-runs/mini}
targets=$(python -m evaluation.protocol mini "$([[ ${TARGETS:-} == all ]] && echo everything || echo targets)")
methods=${*:-$(ls -d machine_unlearning/*/train.py | cut -d/ -f2)}
for method in $methods; do
    bash scripts/unlearn.sh "$method" $targets
    bash scripts/evaluate.sh "$method" $targets
done
python -m evaluation.tables "$RUNS"
