#!/usr/bin/env bash
# AdaAttN: train it, e.g. bash style_transfer/adaattn/train.sh, or DATA=/path/to/UnlearnCanvas with --encoder FILE
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" adaattn "$@"
