#!/usr/bin/env bash
# ESD: sample, predict and score the targets named, e.g. bash machine_unlearning/esd/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" esd "$@"
