#!/usr/bin/env bash
# ESD: unlearn the targets named, e.g. bash machine_unlearning/esd/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" esd "$@"
