#!/usr/bin/env bash
# SHS: sample, predict and score the targets named, e.g. bash machine_unlearning/shs/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" shs "$@"
