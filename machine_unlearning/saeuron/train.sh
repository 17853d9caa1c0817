#!/usr/bin/env bash
# SAeUron: unlearn the targets named, e.g. bash machine_unlearning/saeuron/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" saeuron "$@"
