#!/usr/bin/env bash
# Rebuilds checkpoints/mini from nothing on two CPU cores in under three hours: data, judges, autoencoder, diffusion
# model, and the figures of checkpoints/mini/README.md. Every stage goes on where it was stopped.
#   bash scripts/make_mini.sh [FOLDER [--seed N]]     with another seed than 0, the same miniature trained otherwise
set -euo pipefail
source "$(dirname "$0")/setup.sh"
out=${1:-checkpoints/mini} seed=0 train=data/mini-train test=data/mini-test
if [[ $# -gt 1 ]]; then
    [[ $# -eq 3 && $2 == --seed && $3 =~ ^[0-9]+$ ]] || { echo "error: expected FOLDER --seed N" >&2; exit 2; }
    seed=$3
fi
python -m evaluation.mini_canvas $train --per-object 150
python -m evaluation.mini_canvas $test --seed 1
for task in style object; do
    python -m evaluation.train_classifier --task $task --settings mini --data $train --per-object 150 \
        --test-data $test --out "$out/${task}_classifier.safetensors" --device cpu seed=$seed
done
python -m diffusion_model_finetuning.train_vae --settings mini --data $train --out "$out" --device cpu seed=$seed
# halves of the batch of 64: on the UNet's small maps, two threads of one process are a tenth faster than one
OMP_NUM_THREADS=1 python -m diffusion_model_finetuning.launch 2 diffusion_model_finetuning.train_sd \
    --settings mini --data $train --out "$out" --device cpu batch=32 seed=$seed
rm -rf "$out/.training"  # encoded images, 130 MB
answers=runs/make_mini-$seed/base/answers
python -m machine_unlearning.sample --model "$out" --out $answers
python -m evaluation.predict $answers --style-classifier "$out/style_classifier.safetensors" \
    --object-classifier "$out/object_classifier.safetensors"
python -m evaluation.accuracy $answers
