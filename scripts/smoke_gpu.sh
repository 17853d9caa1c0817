#!/usr/bin/env bash
# Methods, trainers with a resume, sampling, judging and style transfer on this machine's GPU, against its CPU: minutes.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
if ! python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "torch finds no GPU here: nothing was tested"
    exit
fi
python -m pytest -m cuda tests/device "$@"
