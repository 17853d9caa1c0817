#!/usr/bin/env bash
# Set-up and the CPU tests (the full-size ones are run by scripts/smoke_sd15.sh), up to four files at once.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
# in the order of the files: the dear ones have few tests, and by their number would come last
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
