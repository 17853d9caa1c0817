#!/usr/bin/env bash
# IE-ContraAST: paint the benchmark's contents, e.g. bash style_transfer/ie_contrast/transfer.sh --styles Sketch --limit 40
exec bash "$(dirname "$0")/../../scripts/transfer.sh" ie_contrast "$@"
