"""How fast a model draws on this device, of what its matmuls allow, and the hours that the full table takes

    python -m machine_unlearning.bench --dtype float32 bfloat16 --batch 4 16           # the miniature
    python -m machine_unlearning.bench --full --dtype float16 bfloat16 --batch 8 16 32 --compile
    python -m machine_unlearning.bench --full --dtype float32 --batch 1 --guidance 1   # minutes on a CPU

The sampler itself is timed, with one step and with more: their difference is the steps', the rest goes into
noise, text and decoding. `ceiling` is the UNet's share of the FLOP/s of a large square matmul, of the same
dtype on the same device; FLOPs are counted, two for a multiplication with an addition. Seconds are, on a CPU,
this process's own, so that other processes matter little. Memory is the most that was held.
"""

import argparse

from diffusion_model_finetuning.core.card import read_card
from evaluation import canvas, protocol
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early

PRECISIONS = ("float32", "float16", "bfloat16")
SPARING = {"seot"}  # methods that change images of their target alone; the others are the base model's


def parse(argv=None) -> argparse.Namespace:
    """The flags, and `world`, the protocol; raises UserError."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="diffusers folder or CompVis file (checkpoints/mini)")
    parser.add_argument("--full", action="store_true", help="SD 1.5 with random weights in place of a model")
    parser.add_argument("--protocol", help="canvas, mini, ..., or a YAML file (the model's; --full: canvas)")
    parser.add_argument("--dtype", choices=PRECISIONS, nargs="+", help="(the protocol's precision)")
    parser.add_argument("--batch", type=flags.whole(), nargs="+", default=[16], help="images at once (16)")
    parser.add_argument(
        "--guidance", type=flags.decimal(0, 1000), help="1: one row an image (the protocol's)"
    )
    parser.add_argument("--steps", type=flags.whole(), default=2, help="steps timed (2)")
    parser.add_argument("--compile", action="store_true", help="with a compiled UNet, too")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    if args.full and args.model:
        raise UserError(f"--model {args.model}: --full is a model of its own; leave one of them out")
    args.model = args.model or "checkpoints/mini"
    card = {} if args.full else read_card(args.model)
    args.world = protocol.load(args.protocol or card.get("protocol", "canvas"))
    args.dtype = args.dtype or [args.world.precision]
    args.guidance = args.world.guidance if args.guidance is None else args.guidance
    return args


early(__name__, parse)

from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from diffusion_model_finetuning.core.card import SD15
from diffusion_model_finetuning.core.clip_vocabulary import clip_tokenizer
from diffusion_model_finetuning.core.load import empty
from diffusion_model_finetuning.core.read import PARTS
from diffusion_model_finetuning.core.sd import StableDiffusion, eps, load_sd, sample
from evaluation.core.environment import clock, device_name, find_device, peak_memory, reset_peak_memory
from machine_unlearning.core.cli import METHODS, intervenes


def random_sd15(device: str) -> StableDiffusion:
    """Stable Diffusion 1.5 with weights that keep the scale of what passes through, made on the device."""
    networks, generator = [], torch.Generator(device).manual_seed(0)
    for part in PARTS:
        network, weights = empty(SD15, part), {}
        for name, weight in network.state_dict().items():
            made = torch.full(weight.shape, float(name.endswith("weight")), device=device)  # norms and biases
            if weight.ndim > 1:
                made.normal_(0, weight[0].numel() ** -0.5, generator=generator)
            weights[name] = made
        network.load_state_dict(weights, assign=True)
        networks.append(network.to(device).eval().requires_grad_(False))
    scheduler = DDIMScheduler.from_pretrained(SD15, subfolder="scheduler", local_files_only=True)
    return StableDiffusion(*networks, clip_tokenizer(), scheduler, str(SD15))


class Flops(NamedTuple):
    row: int  # of the UNet, for one row of a batch
    decode: int  # of one image


@torch.no_grad()
def count(sd: StableDiffusion, size: int) -> Flops:
    """Counted on the meta device, where nothing is computed, for images of `size` pixels."""
    side = size // sd.downscale
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sd.unet.config)
        vae = AutoencoderKL.from_config(sd.vae.config)
        x = torch.empty(1, unet.config.in_channels, side, side)
        text = torch.empty(1, sd.tokenizer.model_max_length, unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as row:
            eps(unet, x, torch.tensor(1), text)
        with FlopCounterMode(display=False) as decode:
            vae.decode(torch.empty(1, vae.config.latent_channels, side, side))
    return Flops(row.get_total_flops(), decode.get_total_flops())


def matmul_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest of five products of square matrices, that take a millisecond or more."""
    side, fastest = 1024, 0.0
    while fastest < 1e-3:
        side, seconds = 2 * side, []
        a, b = torch.randn(2, side, side, device=device).to(getattr(torch, precision)).unbind()
        for _ in range(6):
            start = clock(device)
            a @ b
            seconds.append(clock(device) - start)
        fastest = min(seconds[1:])
    return 2 * side**3 / fastest


class Rate(NamedTuple):
    """Of one way to draw."""

    precision: str
    batch: int
    compiled: bool
    step: float  # seconds of one step of a batch
    other: float  # seconds of a batch for all but its steps
    memory: int  # bytes, the most that was held

    def images(self, steps: float) -> float:
        """Images a second."""
        return self.batch / (self.other + steps * self.step)


def measure(sd: StableDiffusion, precision: str, batch: int, args) -> Rate:
    """The sampler's, after a first call that compiles and tunes."""
    seconds = {}
    reset_peak_memory(sd.device)
    prompts, seeds = [args.world.prompt(args.world.themes[0], args.world.objects[0])] * batch, [*range(batch)]
    for steps in (1, 1, 1 + args.steps):
        start = clock(sd.device)
        sample(sd, prompts, seeds, steps, args.guidance, args.world.size, precision)
        seconds[steps] = clock(sd.device) - start
    step = (seconds[1 + args.steps] - seconds[1]) / args.steps
    return Rate(precision, batch, sd.compiled is not None, step, seconds[1] - step, peak_memory(sd.device))


def rates(args, device: torch.device):
    """-> Rate of every combination; a model is cast once, so each dtype has its own."""
    for precision in args.dtype:
        sd = random_sd15(str(device)) if args.full else load_sd(args.model, device)
        for compiled in (False, True)[: 1 + args.compile]:
            sd.hasten(precision, compiled)
            for batch in args.batch:
                torch.compiler.reset()
                yield sd, measure(sd, precision, batch, args)


def images_of(method: str) -> int:
    """Images that a method's part of the full table has to draw: 70 answer sets of the protocol canvas."""
    world = protocol.load("canvas")
    cells = [(theme, obj) for theme in world.themes for obj in world.objects]
    targets = canvas.parse_targets(",".join(world.targets))
    drawn = sum(target.covers(*cell) or method not in SPARING for target in targets for cell in cells)
    return drawn * len(world.seeds)


def forecast(measured: list[Rate], steps: float) -> dict[str, tuple[int, float]]:
    """Images and hours of the base model and of each method, each by the fastest way that it can be drawn."""
    fastest = max(rate.images(steps) for rate in measured)
    plain = max(rate.images(steps) for rate in measured if not rate.compiled)
    world = protocol.load("canvas")
    images = {"base": len(world.themes) * len(world.objects) * len(world.seeds)}
    images |= {path.parent.name: images_of(path.parent.name) for path in sorted(METHODS.glob("*/train.py"))}
    return {name: (n, n / (plain if intervenes(name) else fastest) / 3600) for name, n in images.items()}


ASSUMED = """
Assumed: one such device, the fastest row above, and the sampler alone: no training, judges or FID. Methods
that act while images are drawn are not compiled, and cost what others do; SEOT's images without the target
are the base model's, and what its edits cost is not counted."""


def rows(guidance: float) -> int:
    """Of the UNet's batch, for one image."""
    return 1 if guidance == 1 else 2


@command
def main(argv=None):
    args = parse(argv)
    device, world, measured = torch.device(find_device(args.device)), args.world, []
    calls = world.steps * rows(world.guidance) / rows(args.guidance)  # as those timed, for an image
    for sd, rate in rates(args, device):
        if not measured:
            flops = count(sd, world.size)
            ceilings = {dtype: matmul_rate(device, dtype) for dtype in args.dtype}
            image = world.steps * rows(world.guidance) * flops.row + flops.decode
            print(f"{device_name(device)}, {sd.path}: {world.size} pixels, {world.steps} steps")
            print(f"TFLOP: {flops.row / 1e12:.3g} a UNet row, {image / 1e12:.3g} an image")
            for dtype, ceiling in ceilings.items():
                print(f"matmul, {dtype}: {ceiling / 1e12:.3g} TFLOP/s")
            print("\n| dtype | batch | compiled | s a step | s besides | images/s | ceiling | memory GB |")
            print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
        measured.append(rate)
        share = rate.batch * rows(args.guidance) * flops.row / rate.step / ceilings[rate.precision]
        figures = f"{rate.step:.4g} | {rate.other:.4g} | {rate.images(calls):.4g} | {share:.0%}"
        compiled = "yes" if rate.compiled else "no"
        print(
            f"| {rate.precision} | {rate.batch} | {compiled} | {figures} | {rate.memory / 1e9:.1f} |",
            flush=True,
        )
    print("\n| full table | images | hours |\n| --- | ---: | ---: |")
    table = forecast(measured, calls)
    for name, (images, hours) in (table | {"all": map(sum, zip(*table.values()))}).items():
        print(f"| {name} | {images:,} | {hours:,.1f} |")
    print(ASSUMED)


if __name__ == "__main__":
    main()
