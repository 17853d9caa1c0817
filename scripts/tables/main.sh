#!/usr/bin/env bash
# The main table of the paper: ten methods on 50 styles and 20 objects, 5,100 images a cell.
#   MODEL=SD DATA=DATA bash scripts/tables/main.sh [METHOD...] [FLAGS of scripts.sweep]
# First look at what it takes: ... main.sh --dry-run --probe.  On a cluster: ... main.sh --executor slurm, after gate.sh
# in a job with a GPU. Nothing is unlearned unless the gate is passed.
# METHOD: any (all: the later ones, too). MODEL: the fine-tuned model; DATA: the data set; RUNS, CONFIG, TARGETS,
# FLAGS (for train.py) and TABLE (flags for evaluation.tables) may be set. Resumable.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
: "${MODEL:?name the fine-tuned model, a diffusers folder or CompVis file}" "${DATA:?name the folder of the data set}"
runs=${RUNS:-runs/main}
if [[ " $* " != *" --dry-run "* ]]; then
    [[ -e $runs/base/answers/gate.json || " $* " != *slurm* ]] || refuse "first, in a job with a GPU: bash scripts/tables/gate.sh"
    bash scripts/tables/gate.sh
fi
[[ ${1:--} == -* ]] || set -- --methods "$@"
read -ra targets <<< "${TARGETS:-all}"
python -m scripts.sweep --methods paper --targets "${targets[@]}" --protocol canvas --model "$MODEL" --data "$DATA" \
    --out "$runs" ${CONFIG:+--config "$CONFIG"} ${FLAGS:+--flags="$FLAGS"} "$@"
[[ " $* " == *" --dry-run "* ]] || python -m evaluation.tables "$runs" ${TABLE:-}
