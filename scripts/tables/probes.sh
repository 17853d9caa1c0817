#!/usr/bin/env bash
# Probes: models that forgot TARGETS (Sketch Butterfly), unlearned where they are missing, and the base model are asked
# in other ways, and fine-tuned.
#   bash scripts/tables/probes.sh [METHOD...]      the miniature; MODEL, CONFIG, DATA, RUNS, FLAGS as unlearn.sh
# PROBES names some of them (completion ladder inversion noise relearning). Resumable; several at once share the work.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
export RUNS=${RUNS:-runs/mini}
read -ra targets <<< "${TARGETS:-Sketch Butterfly}"
names=(completion ladder inversion noise relearning)
[[ $# -gt 0 ]] || set -- $(cd machine_unlearning && ls -d */train.py | xargs -n 1 dirname)
for method in "$@"; do need_method machine_unlearning train.py "$method"; done
for name in ${PROBES:-}; do [[ " ${names[*]} " == *" $name "* ]] || refuse "PROBES: no probe $name; choose from ${names[*]}"; done
for method in "$@"; do bash scripts/unlearn.sh "$method" "${targets[@]}"; done
runs=()
for target in "${targets[@]}"; do for method in "$@"; do runs+=("$method/$target"); done; done
for name in "${names[@]}"; do
    [[ " ${PROBES:-$name} " == *" $name "* ]] || continue
    python -m machine_unlearning.probe "$name" --model "${MODEL:-checkpoints/mini}" --runs "${runs[@]/#/$RUNS/}" \
        ${CONFIG:+--config "$CONFIG"} ${DATA:+--data "$DATA"}
done
python -m evaluation.tables "$RUNS" --probe all
