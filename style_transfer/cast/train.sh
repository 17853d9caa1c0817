#!/usr/bin/env bash
# CAST: train it, e.g. bash style_transfer/cast/train.sh, or DATA=/path/to/UnlearnCanvas; it needs no encoder
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" cast "$@"
