"""What stylising costs a method at its real widths, with seeded random weights, and what encoding once saves

    python -m style_transfer.bench sanet --size 512 --batch 4

    alone  = content + style + decode       every pair from the start, one by one, as the official scripts
    run    = style / 2 + decode             as transfer.py: a content serves all styles, a style two contents

Figures are seconds an image; on a CPU they are this process's own, so that other processes matter little.
`run` decodes in batches; `saved` is the share of `alone` that it spares. Memory is the most that was held,
weights and PyTorch included. BLIP-Diffusion is not made of widths alone: time its transfer.py.
"""

import argparse

from evaluation.core import flags
from evaluation.core.errors import UserError, closest, command, early
from style_transfer.core import cli

MULTIPLE = 16  # of pixels, that every network takes


def parse(argv=None) -> argparse.Namespace:
    parser = cli.new_parser("bench", __doc__)
    parser.add_argument("method")
    parser.add_argument("--size", type=flags.whole(32, 8192), default=512, help="pixels a side (512)")
    parser.add_argument("--batch", type=flags.whole(), default=4, help="images decoded at once (4)")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    if args.method not in cli.METHODS:
        raise UserError(f"{args.method}: no such method; {closest(args.method, cli.METHODS)}")
    if args.size % MULTIPLE:
        raise UserError(f"--size {args.size}: expected a multiple of {MULTIPLE}")
    return args


early(__name__, parse)

import importlib
import inspect

import torch
from torch import nn

from evaluation.core.environment import clock, find_device, peak_memory


def seeded(method: str) -> nn.Module:
    """The method's network as its class makes it. Raises UserError if that takes more than defaults."""
    model = importlib.import_module(f"style_transfer.{method}.model")
    kind = next(k for _, k in inspect.getmembers(model, inspect.isclass) if hasattr(k, "stylise"))
    if any(p.default is p.empty for p in inspect.signature(kind).parameters.values()):
        raise UserError(f"{method}: its network is not made of widths alone; time its transfer.py")
    torch.manual_seed(0)
    network = kind().eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.weight.any():
            nn.init.kaiming_normal_(layer.weight)  # torch's own lets deep features die away
    return network


def timed(device: torch.device, function, *args):
    """-> what the function returns, seconds."""
    start = clock(device)
    made = function(*args)
    return made, clock(device) - start


@torch.inference_mode()
def measure(network: nn.Module, size: int, batch: int, device: torch.device) -> list[float]:
    """A row of the table: seconds an image (content, style, decode, alone, run), share saved, images a
    second, gigabytes."""
    network, generator = network.to(device), torch.Generator().manual_seed(0)
    contents, styles = (torch.rand(batch, 3, size, size, generator=generator).to(device) for _ in range(2))
    network.stylise(contents[:1], styles[:1])  # warms up
    content, of_content = timed(device, network.encode_content, contents)
    style, of_style = timed(device, network.encode_style, styles)
    _, of_decode = timed(device, network.decode, content, style)
    memory = peak_memory(device)
    _, alone = timed(device, network.stylise, contents[:1], styles[:1])
    run = (of_style / 2 + of_decode) / batch
    parts = [seconds / batch for seconds in (of_content, of_style, of_decode)]
    return [*parts, alone, run, 1 - run / alone, 1 / run, memory / 1e9]


@command
def main(argv=None):
    args = parse(argv)
    figures = measure(seeded(args.method), args.size, args.batch, torch.device(find_device(args.device)))
    print("| " + " | ".join([args.method, *(f"{figure:.2f}" for figure in figures)]) + " |")


if __name__ == "__main__":
    main()
