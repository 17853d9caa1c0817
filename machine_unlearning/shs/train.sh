#!/usr/bin/env bash
# SHS: unlearn the targets named, e.g. bash machine_unlearning/shs/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" shs "$@"
