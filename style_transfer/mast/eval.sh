#!/usr/bin/env bash
# MAST: judge what transfer.sh has made, e.g. bash style_transfer/mast/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" mast "$@"
