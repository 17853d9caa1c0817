#!/usr/bin/env bash
# SPM: unlearn the targets named, e.g. bash machine_unlearning/spm/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" spm "$@"
