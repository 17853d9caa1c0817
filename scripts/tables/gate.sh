#!/usr/bin/env bash
# Before a table: draws and judges the base model, and ends with 2 unless judges and base model are good enough.
#   MODEL=SD DATA=DATA bash scripts/tables/gate.sh      RUNS, CONFIG may be set. Passed once, it is skipped.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
: "${MODEL:?name the fine-tuned model, a diffusers folder or CompVis file}" "${DATA:?name the folder of the data set}"
base=${RUNS:-runs/main}/base/answers
[[ -e $base/gate.json ]] && exit
python -m machine_unlearning.evaluate --model "$MODEL" --data "$DATA" --protocol canvas --base "$base" ${CONFIG:+--config "$CONFIG"}
python -m evaluation.gate --base "$base" --data "$DATA"
