#!/usr/bin/env bash
# Rebuilds checkpoints/mini from nothing on two CPU cores in under three hours: data, judges, autoencoder, diffusion
# model, and the figures of checkpoints/mini/README.md. Every stage goes on where it was stopped.
#   bash scripts/make_mini.sh [FOLDER]
set -euo pipefail
source "$(dirname "$0")/setup.sh"
out=${1:-checkpoints/mini} train=data/mini-train test=data/mini-test
python -m evaluation.mini_canvas $train --per-object 150
python -m evaluation.mini_canvas $test --seed 1
for task in style object; do
    python -m evaluation.train_classifier --task $task --settings mini --data $train --per-object 150 \
        --test-data $test --out "$out/${task}_classifier.safetensors" --device cpu
done
python -m diffusion_model_finetuning.train_vae --settings mini --data $train --out "$out" --device cpu
# halves of the batch of 64: on the UNet's small maps, two threads of one process are a tenth faster than one
OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc_per_node 2 \
    -m diffusion_model_finetuning.train_sd --settings mini --data $train --out "$out" --device cpu batch=32
rm -rf "$out/.training"  # encoded images, 130 MB
answers=runs/make_mini/base/answers
python -m machine_unlearning.sample --model "$out" --out $answers
python -m evaluation.predict $answers --style-classifier "$out/style_classifier.safetensors" \
    --object-classifier "$out/object_classifier.safetensors"
python -m evaluation.accuracy $answers
