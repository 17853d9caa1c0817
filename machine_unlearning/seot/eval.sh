#!/usr/bin/env bash
# SEOT: sample, predict and score the targets named, e.g. bash machine_unlearning/seot/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" seot "$@"
