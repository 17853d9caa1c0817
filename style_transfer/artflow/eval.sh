#!/usr/bin/env bash
# ArtFlow: judge what transfer.sh has made, e.g. bash style_transfer/artflow/eval.sh --partial
set -e
for operator in ${OPERATORS:-adain wct}; do
    bash "$(dirname "$0")/../../scripts/judge_transfer.sh" "artflow_$operator" "$@"
done
