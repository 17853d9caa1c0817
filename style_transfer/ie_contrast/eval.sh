#!/usr/bin/env bash
# IE-ContraAST: judge what transfer.sh has made, e.g. bash style_transfer/ie_contrast/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" ie_contrast "$@"
