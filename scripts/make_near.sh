#!/usr/bin/env bash
# Rebuilds checkpoints/mini-near in half an hour on two CPU cores: the miniature fine-tuned on the ten styles and four like
# them, a judge of all of these, and the figures of checkpoints/mini-near/README.md. Every stage goes on where it was stopped.
#   bash scripts/make_near.sh [FOLDER [MODEL]]     MODEL: another training of the miniature than checkpoints/mini
set -euo pipefail
source "$(dirname "$0")/setup.sh"
out=${1:-checkpoints/mini-near} model=${2:-checkpoints/mini} train=data/near-train test=data/near-test
python -m evaluation.mini_canvas $train --near --per-object 60
python -m evaluation.mini_canvas $test --near --seed 1
python -m evaluation.train_classifier --task style --settings mini --data $train --per-object 60 --test-data $test \
    --out "$out/style_classifier.safetensors" --device cpu themes=near
OMP_NUM_THREADS=1 python -m diffusion_model_finetuning.launch 2 diffusion_model_finetuning.train_sd \
    --settings mini --model "$model" --data $train --out "$out" --device cpu batch=32 per_object=60 steps=2000 lr=5e-4 \
    card.protocol=mini-near
rm -rf "$out/.training"
answers=runs/make_near/$(basename "$out")/base/answers
python -m machine_unlearning.sample --model "$out" --out "$answers"
python -m evaluation.predict "$answers" --style-classifier "$out/style_classifier.safetensors"
python -m evaluation.accuracy "$answers"
