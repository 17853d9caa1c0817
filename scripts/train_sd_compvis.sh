#!/usr/bin/env bash
# The CompVis trainer on the miniature: a few hundred steps of text to image, judged. Two minutes on two CPU cores.
#   bash scripts/train_sd_compvis.sh [FOLDER]         run it again to go on where it was stopped
#   bash scripts/train_sd_compvis.sh FOLDER ip2p      InstructPix2Pix instead: a quarter of an hour
set -euo pipefail
source "$(dirname "$0")/setup.sh"
cat <<'END'
With Stable Diffusion 1.5 (a diffusers folder or CompVis file SD) and the data set (a folder DATA), on 8 GPUs:
python -m diffusion_model_finetuning.compvis.main --base sd --name style50 --model SD --data DATA lightning.trainer.devices=8
on one GPU, to the same effect:
python -m diffusion_model_finetuning.compvis.main --base sd --name style50 --model SD --data DATA lightning.trainer.accumulate_grad_batches=32 lightning.trainer.val_check_interval=32000
InstructPix2Pix: --base ip2p in place of --base sd. Now the miniature:
END
out=${1:-runs/sd-compvis} task=${2:-sd}
case $task in
    sd) data=data/mini many=(--per-object 20) guide=() ;;
    ip2p) data=data/mini-train many=(--per-object 150) guide=(--data data/mini-train --guidance 3 --photo-guidance 1.5) ;;
    *) echo "error: $task: choose sd or ip2p" >&2; exit 2 ;;
esac
python -m evaluation.mini_canvas $data "${many[@]}"
python -m diffusion_model_finetuning.compvis.main --base "mini_$task" --logs "$(dirname "$out")" --name "$(basename "$out")" \
    --model checkpoints/mini --data $data
if [[ ! -e $out/diffusers ]]; then
    python -m diffusion_model_finetuning.convert "$out/model.ckpt" "$out/diffusers" --config checkpoints/mini --weights ema
fi
python -m diffusion_model_finetuning.sample --model "$out/diffusers" --out "$out/answers" --device cpu "${guide[@]}"
python -m evaluation.predict "$out/answers"
python -m evaluation.accuracy "$out/answers"
