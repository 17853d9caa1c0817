#!/usr/bin/env bash
# README's "The real benchmark", rehearsed on a CPU: all sizes and formats are real, weights and pictures random.
#   bash scripts/rehearse.sh [FOLDER [PART...]]      hours, 24 GB of memory, 40 GB of disk; PART: one of those below
# Run it again to go on: what is finished (FOLDER/done) is skipped. FOLDER/log has output, seconds and peak memory.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
root=$PWD out=$(realpath -m "${1:-runs/rehearsal}") parts=${*:2}
export PYTHONPATH=$root
mkdir -p "$out/done"
cd "$out"
exec > >(tee -a log) 2>&1

measured='import resource, runpy, sys, time
began, sys.argv = time.monotonic(), sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"   {time.monotonic() - began:.0f} s, peak {peak:.1f} GB", flush=True)'

wanted() { [[ ! -e done/$1 && " ${parts:-$1} " == *" $1 "* ]]; }  # NAME: not finished, and asked for
part() {  # NAME MODULE ARGUMENTS...
    local name=$1; shift
    wanted "$name" || return 0
    echo "== $name: python -m $*"
    python -c "$measured" "$@" && touch "done/$name"
}

part files tests.rehearsal .
part check evaluation.check DATA
part prepare evaluation.prepare DATA canvas512 --size 512
for task in style object; do
    part "judge_$task" evaluation.train_classifier --task $task --settings vit_large --data canvas512 \
        --out "judges/$task.safetensors" init=checkpoints/vit_large_patch16_224.augreg_in21k.safetensors \
        "themes=[Rust,Sketch]" "objects=[Cats,Sea]" steps=1 batch=2 warmup=0 workers=0
done
part convert diffusion_model_finetuning.convert checkpoints/sd15 checkpoints/v1-5-pruned-emaonly.ckpt
part diffusers diffusion_model_finetuning.train_sd --settings sd15 --model checkpoints/sd15 --data canvas512 \
    --out finetuned/diffusers steps=1 batch=1 precision=no gradient_checkpointing=true size=64 per_object=1 workers=0
part compvis diffusion_model_finetuning.compvis.main --base sd --model checkpoints/v1-5-pruned-emaonly.ckpt \
    --data canvas512 --logs finetuned --name compvis data.params.{size=64,per_object=1,batch_size=1,workers=0} \
    lightning.trainer.{max_steps=1,accumulate_grad_batches=1,accelerator=cpu,limit_val_batches=1}

sd=(--model checkpoints/sd15 --data DATA)
part base machine_unlearning.evaluate "${sd[@]}" --base runs/base/answers --batch 4
part gate evaluation.gate --base runs/base/answers --data DATA || echo "   which was expected: the weights are random"
part plan scripts.sweep --model checkpoints/v1-5-pruned-emaonly.ckpt --data DATA --methods all --targets all \
    --out plan --dry-run
for train in "$root"/machine_unlearning/*/train.py; do
    method=$(basename "$(dirname "$train")")
    wanted "$method" || continue
    settings=$(python -c "from tests.full_size import quick; print(*quick('$method', steps=2))")
    part "$method" "machine_unlearning.$method.train" "${sd[@]}" --target Sketch --out "runs/$method/Sketch" $settings
done
rm -f done/{evaluate,tables}  # they skip what is done themselves, and there may be more runs
part evaluate machine_unlearning.evaluate "${sd[@]}" --runs runs/*/Sketch --batch 4
part tables evaluation.tables runs
