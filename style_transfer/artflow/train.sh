#!/usr/bin/env bash
# ArtFlow: train a network for each operator, e.g. OPERATORS=wct bash style_transfer/artflow/train.sh
set -e
for operator in ${OPERATORS:-adain wct}; do
    out=${RUNS:-runs}/train/artflow_$operator
    bash "$(dirname "$0")/../../scripts/train_transfer.sh" artflow --out "$out" operator="$operator" "$@"
done
