#!/usr/bin/env bash
# Lint and formatting.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
ruff check .
ruff format --check .
