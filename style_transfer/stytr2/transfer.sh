#!/usr/bin/env bash
# StyTr2: paint the benchmark's contents, e.g. bash style_transfer/stytr2/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" stytr2 "$@"
