#!/usr/bin/env bash
# Judges what transfer.sh has made: losses, classifiers, perceptual distances, costs.
#   bash scripts/judge_transfer.sh NAME [FLAGS of style_transfer.evaluate]   RUNS may be set in the environment
set -euo pipefail
source "$(dirname "$0")/setup.sh"
[[ $# -gt 0 ]] || refuse "name a folder in ${RUNS:-runs}/style_transfer"
name=$1; shift
python -m style_transfer.evaluate "${RUNS:-runs}/style_transfer/$name" "$@"
