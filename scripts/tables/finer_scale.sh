#!/usr/bin/env bash
# The finer-scale table: every method forgets an object in one style, the `pairs` of the protocol, each on its own.
#   bash scripts/tables/finer_scale.sh [METHOD...] [FLAGS of scripts.sweep]      on the miniature; with MODEL and DATA as main.sh
set -euo pipefail
main=${MODEL:+main.sh}
TARGETS=pairs exec bash "$(dirname "$0")/${main:-mini_main.sh}" "$@"
