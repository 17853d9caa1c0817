#!/usr/bin/env bash
# SPEED: sample, predict and score the targets named, e.g. bash machine_unlearning/speed/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" speed "$@"
