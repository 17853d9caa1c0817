#!/usr/bin/env bash
# SANet: judge what transfer.sh has made, e.g. bash style_transfer/sanet/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" sanet "$@"
