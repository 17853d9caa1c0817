#!/usr/bin/env bash
# SAeUron: sample, predict and score the targets named, e.g. bash machine_unlearning/saeuron/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" saeuron "$@"
