#!/usr/bin/env bash
# CAST: judge what transfer.sh has made, e.g. bash style_transfer/cast/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" cast "$@"
