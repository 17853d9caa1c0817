#!/usr/bin/env bash
# Adversarial prompts: the main table's runs, unlearned where they are missing, and the base model are attacked.
#   bash scripts/tables/adversarial.sh [METHOD...] [FLAGS of scripts.sweep]      on the miniature; with MODEL and DATA as main.sh
# ATTACK names another of evaluation/protocols/attacks, or a YAML file, of the same prompts.
set -euo pipefail
main=${MODEL:+main.sh} default=${MODEL:+canvas}
TABLE=--adversarial exec bash "$(dirname "$0")/${main:-mini_main.sh}" "$@" --attack "${ATTACK:-${default:-mini}}"
