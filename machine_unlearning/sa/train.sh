#!/usr/bin/env bash
# SA: unlearn the targets named, e.g. bash machine_unlearning/sa/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" sa "$@"
