#!/usr/bin/env bash
# AdaAttN: judge what transfer.sh has made, e.g. bash style_transfer/adaattn/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" adaattn "$@"
