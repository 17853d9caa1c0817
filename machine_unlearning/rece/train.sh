#!/usr/bin/env bash
# RECE: unlearn the targets named, e.g. bash machine_unlearning/rece/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" rece "$@"
