#!/usr/bin/env bash
# The style-transfer table: every method paints the benchmark and is judged; two trivial rows beside them on the miniature.
#   bash scripts/tables/style_transfer.sh [METHOD...]
#   RUNS, DATA, PROTOCOL and WEIGHTS (folder of the methods' folders) may be set in the environment
# What is done is skipped; after other weights, give other RUNS.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"
runs=${RUNS:-runs}/style_transfer data=${DATA:-mini}
methods=${*:-sanet adaattn mast mccnet artflow cast ie_contrast stytr2}
for row in content statistics; do
    python -m style_transfer.trivial $row --data "$data" ${PROTOCOL:+--protocol "$PROTOCOL"} --out "$runs/$row"
done
for method in $methods; do
    names=$method
    [[ $method != artflow ]] || names="artflow_adain artflow_wct"
    for name in $names; do
        options=()
        [[ $name == "$method" ]] || options=(operator="${name#artflow_}")
        WEIGHTS=${WEIGHTS:+$WEIGHTS/$name} NAME=$name bash scripts/transfer.sh "$method" "${options[@]}"
    done
done
for folder in "$runs"/*/; do
    [[ -e $folder/losses.json ]] || python -m style_transfer.evaluate "${folder%/}"
done
python -m style_transfer.table "$runs"
python -m style_transfer.sheet "$runs" --data "$data" --out "$runs/sheet.png"
