#!/usr/bin/env bash
# MAST: paint the benchmark's contents, e.g. bash style_transfer/mast/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" mast "$@"
