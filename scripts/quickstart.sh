#!/usr/bin/env bash
# Forget a style and an object with UCE and a style with ESD, on the embedded miniature: sample, judge, table, picture.
# About a minute and a half on two CPU cores after installation. Run it again: what is finished is skipped.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
export RUNS=runs/quickstart MODEL=checkpoints/mini
# both methods at once, on half of the cores each; the two evaluations share the drawing of the base model's images
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(( ($(getconf _NPROCESSORS_ONLN) + 1) / 2 ))}
(bash scripts/unlearn.sh esd Neon_Lines && bash scripts/evaluate.sh esd Neon_Lines) & esd=$!
trap 'kill $esd 2> /dev/null || true' EXIT
bash scripts/unlearn.sh uce Sketch Cats
bash scripts/evaluate.sh uce Sketch Cats
wait $esd
python -m evaluation.tables $RUNS
python -m evaluation.contact_sheet --base $RUNS/base/answers --out $RUNS/sheet.png \
    --answers $RUNS/uce/Sketch/answers $RUNS/uce/Cats/answers $RUNS/esd/Neon_Lines/answers
echo "picture (base above, unlearned below, same noise): $RUNS/sheet.png"
