#!/usr/bin/env bash
# CA: sample, predict and score the targets named, e.g. bash machine_unlearning/ca/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" ca "$@"
