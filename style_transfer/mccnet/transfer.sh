#!/usr/bin/env bash
# MCCNet: paint the benchmark's contents, e.g. bash style_transfer/mccnet/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" mccnet "$@"
