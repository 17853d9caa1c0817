#!/usr/bin/env bash
# HiRM: unlearn the targets named, e.g. bash machine_unlearning/hirm/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" hirm "$@"
