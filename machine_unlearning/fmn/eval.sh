#!/usr/bin/env bash
# FMN: sample, predict and score the targets named, e.g. bash machine_unlearning/fmn/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" fmn "$@"
