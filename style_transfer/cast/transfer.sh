#!/usr/bin/env bash
# CAST: paint the benchmark's contents, e.g. bash style_transfer/cast/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" cast "$@"
