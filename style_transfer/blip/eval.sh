#!/usr/bin/env bash
# BLIP-Diffusion: judge what transfer.sh has made, e.g. bash style_transfer/blip/eval.sh --partial
exec bash "$(dirname "$0")/../../scripts/judge_transfer.sh" blip "$@"
