#!/usr/bin/env bash
# AdaAttN: paint the benchmark's contents, e.g. bash style_transfer/adaattn/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" adaattn "$@"
