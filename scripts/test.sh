#!/usr/bin/env bash
# Set-up and the CPU tests (the full-size ones are run by scripts/smoke_sd15.sh).
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python -m pytest "$@"
