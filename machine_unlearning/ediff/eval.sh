#!/usr/bin/env bash
# EDiff: sample, predict and score the targets named, e.g. bash machine_unlearning/ediff/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" ediff "$@"
