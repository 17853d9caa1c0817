#!/usr/bin/env bash
# FIA: sample, predict and score the targets named, e.g. bash machine_unlearning/fia/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" fia "$@"
