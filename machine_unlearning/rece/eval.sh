#!/usr/bin/env bash
# RECE: sample, predict and score the targets named, e.g. bash machine_unlearning/rece/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" rece "$@"
