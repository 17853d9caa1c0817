#!/usr/bin/env bash
# IE-ContraAST: train it, e.g. bash style_transfer/ie_contrast/train.sh, or DATA=/path/to/UnlearnCanvas with --encoder FILE
exec bash "$(dirname "$0")/../../scripts/train_transfer.sh" ie_contrast "$@"
