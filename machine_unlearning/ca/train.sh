#!/usr/bin/env bash
# CA: unlearn the targets named, e.g. bash machine_unlearning/ca/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" ca "$@"
