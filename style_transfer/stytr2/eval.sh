#!/usr/bin/env bash
# StyTr2: judge what transfer.sh has made, e.g. bash style_transfer/stytr2/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" stytr2 "$@"
