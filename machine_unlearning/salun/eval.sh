#!/usr/bin/env bash
# SalUn: sample, predict and score the targets named, e.g. bash machine_unlearning/salun/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" salun "$@"
