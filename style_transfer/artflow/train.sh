#!/usr/bin/env bash
# ArtFlow: train it, e.g. RUNS=/tmp/runs bash style_transfer/artflow/train.sh operator=wct; see the README for both
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" artflow "$@"
