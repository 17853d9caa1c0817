#!/usr/bin/env bash
# MCCNet: train it, e.g. bash style_transfer/mccnet/train.sh, or DATA=/path/to/UnlearnCanvas with --encoder FILE
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" mccnet "$@"
