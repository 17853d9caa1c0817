#!/usr/bin/env bash
# UCE: sample, predict and score the targets named, e.g. bash machine_unlearning/uce/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" uce "$@"
