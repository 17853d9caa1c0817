#!/usr/bin/env bash
# Trains the miniature's style transfer from nothing: the encoder, then every method (ArtFlow twice). Every stage goes
# on where it was stopped, and what is finished is skipped; so remove a folder to train it anew.
#   bash scripts/make_transfer.sh [FOLDER]
set -euo pipefail
source "$(dirname "$0")/setup.sh"
out=${1:-checkpoints/mini/style_transfer} images=data/mini-train
train() { python -m style_transfer.train "$1" --data mini --encoder "$out/vgg_normalised.pth" --out "$out/$2" --device cpu "${@:3}"; }

if [[ ! -e $out/vgg_normalised.pth ]]; then
    python -m evaluation.mini_canvas $images --per-object 150
    python -m style_transfer.train_encoder --data $images --per-object 150 --out "$out"
fi
for method in sanet adaattn mast mccnet cast ie_contrast stytr2; do
    train $method $method
done
for operator in adain wct; do
    train artflow artflow_$operator operator=$operator
done
