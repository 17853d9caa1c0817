#!/usr/bin/env bash
# The sequential table: every method forgets the requests of the protocol's `orders` in turn, and, to compare, at once.
#   bash scripts/tables/sequential.sh [METHOD...] [FLAGS of scripts.sweep]      on the miniature; with MODEL and DATA as main.sh
set -euo pipefail
main=${MODEL:+main.sh}
TARGETS=orders TABLE=--sequential exec bash "$(dirname "$0")/${main:-mini_main.sh}" "$@"
