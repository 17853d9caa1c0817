#!/usr/bin/env bash
# Forget a style and an object with UCE and a style with ESD, on the embedded miniature: sample, judge, table, picture.
# About 2 minutes on two CPU cores after installation. Run it again: what is finished is skipped.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
export RUNS=runs/quickstart MODEL=checkpoints/mini
runs=($RUNS/uce/Sketch $RUNS/uce/Cats $RUNS/esd/Neon_Lines)
bash scripts/unlearn.sh uce Sketch Cats
bash scripts/unlearn.sh esd Neon_Lines
python -m machine_unlearning.evaluate --model $MODEL --runs "${runs[@]}"
python -m evaluation.tables $RUNS
python -m evaluation.contact_sheet --base $RUNS/base/answers --out $RUNS/sheet.png --answers "${runs[@]/%//answers}"
echo "picture (base above, unlearned below, same noise): $RUNS/sheet.png"
