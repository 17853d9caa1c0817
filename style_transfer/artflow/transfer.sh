#!/usr/bin/env bash
# ArtFlow: paint the benchmark's contents with both operators, e.g. bash style_transfer/artflow/transfer.sh --styles Sketch
set -e
for operator in ${OPERATORS:-adain wct}; do
    NAME=artflow_$operator bash "$(dirname "$0")/../../scripts/transfer.sh" artflow operator="$operator" "$@"
done
