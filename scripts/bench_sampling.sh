#!/usr/bin/env bash
# How fast images are drawn on this device by dtype, batch and compilation, and the hours of the full table from it.
#   bash scripts/bench_sampling.sh [FLAG...]      flags of machine_unlearning.bench in place of those below
# On a GPU Stable Diffusion 1.5's size with random weights, a quarter of an hour; without a GPU the miniature, seconds.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
flags=(--dtype float32 bfloat16 --batch 1 4 16)
if python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    flags=(--full --dtype float16 bfloat16 --batch 8 16 32 --compile)
fi
(($#)) && flags=("$@")
python -m machine_unlearning.bench "${flags[@]}"
