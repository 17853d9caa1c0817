#!/usr/bin/env bash
# Trains the miniature anew without each TARGET, and enters what comes out as a run: what unlearning is measured against.
#   bash scripts/retrain.sh TARGET...        three quarters of an hour each on two CPU cores; goes on where it was stopped
# At real size the commands are those of the two last lines, with --settings sd15, --model and your --data.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
base=checkpoints/mini data=data/mini-train runs=${RUNS:-runs/mini}
for target in "$@"; do
    model=runs/without/$target
    python -m evaluation.mini_canvas $data --per-object 150
    mkdir -p "$model" && cp -r $base/vae $base/tokenizer "$model"  # the base model's own, around which it is trained
    OMP_NUM_THREADS=1 python -m diffusion_model_finetuning.launch 2 diffusion_model_finetuning.train_sd \
        --settings mini --data $data --out "$model" --device cpu batch=32 without="$target"
    python -m machine_unlearning.retrained "$model" --model $base --target "$target" --out "$runs/retrained/$target"
done
