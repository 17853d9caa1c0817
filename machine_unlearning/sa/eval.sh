#!/usr/bin/env bash
# SA: sample, predict and score the targets named, e.g. bash machine_unlearning/sa/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" sa "$@"
