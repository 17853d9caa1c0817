#!/usr/bin/env bash
# ArtFlow: paint the benchmark's contents, e.g. bash style_transfer/artflow/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" artflow "$@"
