#!/usr/bin/env bash
# SPEED: unlearn the targets named, e.g. bash machine_unlearning/speed/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" speed "$@"
