#!/usr/bin/env bash
# FMN: unlearn the targets named, e.g. bash machine_unlearning/fmn/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" fmn "$@"
