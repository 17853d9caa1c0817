#!/usr/bin/env bash
# BLIP-Diffusion: paint the benchmark's contents, e.g. bash style_transfer/blip/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" blip "$@"
