"""Paints pictures, or the contents of the benchmark, with BLIP-Diffusion; flags and outputs: `core/cli.py`

    python -m style_transfer.blip.transfer --weights DIR --content cat.jpg --style art/ --out DIR subjects=cat
    python -m style_transfer.blip.transfer --weights DIR --data mini --out runs/style_transfer/blip

The content gives its edges only. Options: steps=100 and guidance=7.5 of solver=pndm (or dpm, with 20 to 30
steps), prompt, repeats, negative, seeds=0 (one number); subjects is what the style picture shows, targets
what the content does if that is something else: in the benchmark the object of each. The noise of an output
is a function of the seed and its pair. --dtype is that of the weights, the VAE's apart; latents are float32.
"""

from evaluation.core.errors import UserError, command, early
from style_transfer.core import cli


def parse(argv=None):
    args = cli.parse_transfer(__doc__, __file__, argv)
    if set("{}") & set(args.options["prompt"].replace("{subject}", "")):
        raise UserError(f"prompt={args.options['prompt']}: expected no other braces than {{subject}}")
    return args


early(__name__, parse)

import torch

from style_transfer.blip import model
from style_transfer.core import painting
from style_transfer.core.run import Stylist, chosen
from style_transfer.protocol import Row


def stylist(network: model.BlipDiffusion, options: dict) -> Stylist:
    """The network's functions, told what a style image and a content show, and the seed of a pair."""
    encode = chosen(network.encode_style, options)
    decode = chosen(network.decode, options)
    subject, target = options["subjects"], options["targets"] or options["subjects"]

    def encode_style(images, names):
        return encode(images, subjects=[_object(name, subject) for name in names])

    def paint(edges, vectors, pairs):
        targets = [_object(content, target) for content, _ in pairs]
        seeds = [[options["seeds"], *map(_words, pair)] for pair in pairs]
        return decode(edges, vectors, targets=targets, seeds=seeds)

    return Stylist(lambda images, _: network.encode_content(images), encode_style, paint, network.multiple)


def _object(name, otherwise: str) -> str:
    """What an image shows: the benchmark's rows say it."""
    return name.object if isinstance(name, Row) else otherwise


def _words(name) -> list:
    """What the noise knows an image by: not the folder it lies in."""
    return list(name) if isinstance(name, Row) else [name.name]


@command
def main(argv=None):
    args = parse(argv)
    network, found = painting.load(model, args)
    network.lowered(getattr(torch, args.dtype))
    painting.run(args, stylist(network, args.options), found)


if __name__ == "__main__":
    main()
