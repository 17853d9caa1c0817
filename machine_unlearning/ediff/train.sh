#!/usr/bin/env bash
# EDiff: unlearn the targets named, e.g. bash machine_unlearning/ediff/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" ediff "$@"
