#!/usr/bin/env bash
# Forget a style and an object with UCE and a style with ESD, on the embedded miniature: sample, judge, table, picture.
# Under 6 minutes on two CPU cores after installation. Run it again: what is finished is skipped.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
export RUNS=runs/quickstart MODEL=checkpoints/mini
bash scripts/unlearn.sh uce Sketch Cats
bash scripts/unlearn.sh esd Neon_Lines
bash scripts/evaluate.sh uce Sketch Cats
bash scripts/evaluate.sh esd Neon_Lines
python -m evaluation.tables $RUNS
python -m evaluation.contact_sheet --base $RUNS/base/answers --out $RUNS/sheet.png \
    --answers $RUNS/uce/Sketch/answers $RUNS/uce/Cats/answers $RUNS/esd/Neon_Lines/answers
echo "picture (base above, unlearned below, same noise): $RUNS/sheet.png"
