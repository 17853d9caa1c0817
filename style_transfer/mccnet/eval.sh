#!/usr/bin/env bash
# MCCNet: judge what transfer.sh has made, e.g. bash style_transfer/mccnet/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" mccnet "$@"
