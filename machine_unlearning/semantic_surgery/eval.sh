#!/usr/bin/env bash
# Semantic Surgery: sample, predict and score the targets named, e.g. bash machine_unlearning/semantic_surgery/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" semantic_surgery "$@"
