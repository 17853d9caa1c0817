#!/usr/bin/env bash
# The main table on the miniature: every method on all ten styles and ten objects; with MODEL=checkpoints/mini-near and a
# folder RUNS of its own, on the four styles that have near neighbours there, and six objects.
#   bash scripts/tables/mini_main.sh [METHOD...] [FLAGS of scripts.sweep]      TARGETS="Sketch Cats" runs these alone
# WORKERS (jobs at once: as many as cores, up to 4), RUNS, MODEL, DATA, FLAGS (for train.py) and TABLE (flags for
# evaluation.tables) may be set in the environment. Resumable.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-runs/mini} cores=$(getconf _NPROCESSORS_ONLN)
[[ $cores -le 4 ]] || cores=4
[[ ${1:--} == -* ]] || set -- --methods "$@"
read -ra targets <<< "${TARGETS:-targets}"
python -m scripts.sweep --methods all --targets "${targets[@]}" --model "${MODEL:-checkpoints/mini}" --data "${DATA:-mini}" \
    --out "$runs" --workers "${WORKERS:-$cores}" ${FLAGS:+--flags="$FLAGS"} "$@"
[[ " $* " == *" --dry-run "* ]] || python -m evaluation.tables "$runs" ${TABLE:-}
