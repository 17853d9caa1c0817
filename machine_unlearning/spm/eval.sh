#!/usr/bin/env bash
# SPM: sample, predict and score the targets named, e.g. bash machine_unlearning/spm/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" spm "$@"
