#!/usr/bin/env bash
# MAST: train it, e.g. bash style_transfer/mast/train.sh, or DATA=/path/to/UnlearnCanvas with --encoder FILE
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" mast "$@"
