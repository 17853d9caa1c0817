#!/usr/bin/env bash
# What stylising one 512-pixel image costs each method, and what encoding once saves. Real widths, random weights.
#   bash scripts/bench_transfer.sh [METHOD...]      FLAGS (for style_transfer.bench) may be set in the environment
# About 10 minutes on two CPU cores.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
echo "| method | content | style | decode | alone | run | saved | images/s | memory GB |"
echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
for method in ${@:-sanet adaattn mast mccnet artflow cast ie_contrast stytr2}; do
    need_method style_transfer model.py "$method"
    python -m style_transfer.bench "$method" ${FLAGS:-}
done
