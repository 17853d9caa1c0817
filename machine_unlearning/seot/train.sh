#!/usr/bin/env bash
# SEOT: unlearn the targets named, e.g. bash machine_unlearning/seot/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" seot "$@"
