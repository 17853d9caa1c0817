#!/usr/bin/env bash
# Fine-tunes the miniature text to image for a few hundred steps and judges its answers. Three minutes on two CPU cores.
# (scripts/make_mini.sh trains it from nothing.)
#   bash scripts/train_sd.sh [FOLDER]        run it again to go on where it was stopped
set -euo pipefail
source "$(dirname "$0")/setup.sh"
cat <<'END'
With Stable Diffusion 1.5 (a diffusers folder SD) and the data set (a folder DATA), on 8 GPUs:
accelerate launch --multi_gpu --num_processes 8 -m diffusion_model_finetuning.train_sd --settings sd15 --model SD --data DATA --out OUT batch=4
on one GPU, to the same effect:
accelerate launch --num_processes 1 -m diffusion_model_finetuning.train_sd --settings sd15 --model SD --data DATA --out OUT
Now the miniature:
END
out=${1:-runs/sd} data=data/mini
python -m evaluation.mini_canvas $data
python -m diffusion_model_finetuning.train_sd --settings mini --model checkpoints/mini --data $data --out "$out" \
    --device cpu per_object=20 steps=400 lr=1e-4 save_every=100 validate.every=100
python -m diffusion_model_finetuning.sample --model "$out" --out "$out/answers" --device cpu
python -m evaluation.predict "$out/answers"
python -m evaluation.accuracy "$out/answers"
