#!/usr/bin/env bash
# One step on Stable Diffusion 1.5's exact architecture with random weights: CPU, minutes, up to 24 GB.
#   bash scripts/smoke_sd15.sh esd       a method of unlearning, or training, compvis, convert, blip, attack, probe
set -euo pipefail
source "$(dirname "$0")/setup.sh"
[[ $# == 1 ]] || refuse "name a method, such as esd, or training, compvis, convert, blip, attack, probe"
name=$1
python -m pytest -m sd15 -s -k "[$name] or _$name or _a_$name"
