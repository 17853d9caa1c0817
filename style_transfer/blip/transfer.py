"""Paints pictures, or the contents of the benchmark, with BLIP-Diffusion; flags and outputs: `core/cli.py`

    python -m style_transfer.blip.transfer --weights DIR --content cat.jpg --style art/ --out DIR subjects=cat
    python -m style_transfer.blip.transfer --weights DIR --data mini --out runs/style_transfer/blip

The content gives its edges only. Options: steps=100 and guidance=7.5 of solver=pndm (or dpm, with 20 to 30
steps), prompt, repeats, negative, seeds=0 (one number); subjects is what the style picture shows, in the
benchmark always its object. The noise of an output is a function of the seed and its pair.
"""

from evaluation.core.errors import UserError, command, early
from style_transfer.core import cli


def parse(argv=None):
    args = cli.parse_transfer(__doc__, __file__, argv)
    if set("{}") & set(args.options["prompt"].replace("{subject}", "")):
        raise UserError(f"prompt={args.options['prompt']}: expected no other braces than {{subject}}")
    return args


early(__name__, parse)

from style_transfer.blip import model
from style_transfer.core import painting
from style_transfer.core.run import Stylist, chosen
from style_transfer.protocol import Row


def stylist(network: model.BlipDiffusion, options: dict) -> Stylist:
    """The network's functions, told the subject of a style image and the seed of a pair."""
    encode = chosen(network.encode_style, options)
    decode = chosen(network.decode, options)

    def encode_style(images, names):
        return encode(images, subjects=[_subject(name, options["subjects"]) for name in names])

    def paint(edges, text, pairs):
        return decode(edges, text, seeds=[[options["seeds"], *map(_words, pair)] for pair in pairs])

    return Stylist(lambda images, _: network.encode_content(images), encode_style, paint, network.multiple)


def _subject(name, otherwise: str) -> str:
    return name.object if isinstance(name, Row) else otherwise


def _words(name) -> list:
    """What the noise knows an image by: not the folder it lies in."""
    return list(name) if isinstance(name, Row) else [name.name]


@command
def main(argv=None):
    args = parse(argv)
    network, found = painting.load(model, args)
    painting.run(args, stylist(network, args.options), found)


if __name__ == "__main__":
    main()
