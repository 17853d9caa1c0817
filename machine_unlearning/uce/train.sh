#!/usr/bin/env bash
# UCE: unlearn the targets named, e.g. bash machine_unlearning/uce/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" uce "$@"
