#!/usr/bin/env bash
# Diff-QuickFix: unlearn the targets named, e.g. bash machine_unlearning/diff_quickfix/train.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/unlearn.sh" diff_quickfix "$@"
