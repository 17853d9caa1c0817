#!/usr/bin/env bash
# Diff-QuickFix: sample, predict and score the targets named, e.g. bash machine_unlearning/diff_quickfix/eval.sh Sketch Cats
exec bash "$(dirname "$0")/../../scripts/evaluate.sh" diff_quickfix "$@"
