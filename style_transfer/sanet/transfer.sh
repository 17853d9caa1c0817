#!/usr/bin/env bash
# SANet: paint the benchmark's contents, e.g. bash style_transfer/sanet/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" sanet "$@"
