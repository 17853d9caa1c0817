#!/usr/bin/env bash
# Probes: models that forgot TARGETS (Sketch Butterfly), unlearned where they are missing, and the base model are asked
# in other ways, and fine-tuned; so are models that were trained without them, where scripts/retrain.sh made some.
#   bash scripts/tables/probes.sh [METHOD...]      the miniature; MODEL, CONFIG, DATA, RUNS, FLAGS as unlearn.sh
# PROBES names some of them (completion ladder inversion noise relearning, and distance, from the retrained models).
# Resumable; several at once share the work.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
export RUNS=${RUNS:-runs/mini}
read -ra targets <<< "${TARGETS:-Sketch Butterfly}"
names=(completion ladder inversion noise relearning distance)
[[ $# -gt 0 ]] || set -- $(cd machine_unlearning && ls -d */train.py | xargs -n 1 dirname)
for method in "$@"; do need_method machine_unlearning train.py "$method"; done
for name in ${PROBES:-}; do [[ " ${names[*]} " == *" $name "* ]] || refuse "PROBES: no probe $name; choose from ${names[*]}"; done
if [[ " ${PROBES:-} " == *" distance "* ]] && ! ls "${targets[@]/#/$RUNS/retrained/}" > /dev/null 2>&1; then
    refuse "PROBES: distance is that to a retrained model; first: bash scripts/retrain.sh ${targets[*]}"
fi
for method in "$@"; do bash scripts/unlearn.sh "$method" "${targets[@]}"; done
runs=() near=()  # near a retrained model, from which there is a distance
for target in "${targets[@]}"; do
    of_target=("${@/%//$target}")
    [[ ! -e $RUNS/retrained/$target/record.json ]] || { of_target+=("retrained/$target"); near+=("${of_target[@]}"); }
    runs+=("${of_target[@]}")
done
for name in "${names[@]}"; do
    [[ " ${PROBES:-$name} " == *" $name "* ]] || continue
    [[ $name != distance ]] || runs=("${near[@]}")
    [[ ${#runs[@]} -eq 0 ]] || python -m machine_unlearning.probe "$name" --model "${MODEL:-checkpoints/mini}" \
        --runs "${runs[@]/#/$RUNS/}" ${CONFIG:+--config "$CONFIG"} ${DATA:+--data "$DATA"}
done
python -m evaluation.tables "$RUNS" --probe all
