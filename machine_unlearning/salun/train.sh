#!/usr/bin/env bash
# SalUn: unlearn the targets named, e.g. bash machine_unlearning/salun/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" salun "$@"
