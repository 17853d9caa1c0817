#!/usr/bin/env bash
# HiRM: sample, predict and score the targets named, e.g. bash machine_unlearning/hirm/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" hirm "$@"
