#!/usr/bin/env bash
# Semantic Surgery: unlearn the targets named, e.g. bash machine_unlearning/semantic_surgery/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" semantic_surgery "$@"
