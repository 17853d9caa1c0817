#!/usr/bin/env bash
# StyTr2: train it, e.g. bash style_transfer/stytr2/train.sh, or DATA=/path/to/UnlearnCanvas with --encoder FILE
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" stytr2 "$@"
