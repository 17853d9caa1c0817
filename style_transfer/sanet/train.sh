#!/usr/bin/env bash
# SANet: train it on the miniature, or on DATA=/path/to/UnlearnCanvas with --encoder FILE
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" sanet "$@"
