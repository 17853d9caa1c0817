#!/usr/bin/env bash
# FIA: unlearn the targets named, e.g. bash machine_unlearning/fia/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" fia "$@"
