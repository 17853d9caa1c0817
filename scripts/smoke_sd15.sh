#!/usr/bin/env bash
# One step of a method on Stable Diffusion 1.5's exact architecture with random weights: CPU, minutes, up to 24 GB.
#   bash scripts/smoke_sd15.sh esd
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python -m pytest -m sd15 -s -k "${1:?name a method, such as esd}"
