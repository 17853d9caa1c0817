"""A method of a few lines: the content in the style's mean colour: `python -m tests.style_transfer.toy`"""

import sys
from pathlib import Path

import torch
from torch import nn

from evaluation.core.errors import UserError, command
from style_transfer.core import cli, weights
from style_transfer.core.networks import with_options
from style_transfer.transfer import transfer

FILES = {"toy_iter_100.pth": "scale"}
OPTIONS = {"shift": 0.0, "strength": 1.0, "steps": 1}


class Toy(nn.Module):
    """Notes what it encodes. A style all red is refused, all blue too large; one without red gives NaN."""

    multiple, style_multiple = 8, 1

    def __init__(self, scale):
        super().__init__()
        vars(self).update(OPTIONS)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.contents, self.styles, self.decoded, self.sides = [], [], [], set()

    def encode_content(self, images):
        assert all(side % self.multiple == 0 for side in images.shape[2:])
        self.contents.append(len(images))
        return images, images.mean((2, 3), keepdim=True)

    def encode_style(self, images):
        self.styles.append(len(images))
        self.sides.add(tuple(images.shape[2:]))  # of styles
        if (images[:, 2].mean((1, 2)) > 0.99).any():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {"mean": images.mean((2, 3), keepdim=True) + self.shift}

    def decode(self, content, style):
        self.decoded.append(len(content[0]))
        if (style["mean"][:, 0] > 0.99).any():
            raise UserError("too red for the toy")
        mean = torch.where(style["mean"][:, :1] == 0, torch.nan, style["mean"])
        image = content[0]
        for _ in range(self.steps):
            image = image + self.scale * self.strength * (mean - image.mean((2, 3), keepdim=True))
        return image


def load(files):
    LOADED.append(Toy(torch.load(files["toy_iter_100.pth"], weights_only=True)["scale"]))
    return LOADED[-1]


LOADED = []  # networks, the latest last


def released(folder, scale=1.0):
    """Writes the file that its authors released."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"scale": torch.tensor(scale)}, folder / "toy_iter_100.pth")
    return folder


@command
def main(argv=None):
    parser = cli.transfer_parser("toy", "The toy.")
    parser.add_argument("--weights", required=True)
    args = parser.parse_intermixed_args(argv)
    args.method = "toy"
    cli.check_transfer(args, OPTIONS, {})
    files = weights.find(Path(args.weights), FILES)
    transfer(args, with_options(load(files), **args.options), files)


if __name__ == "__main__":
    main(sys.argv[1:])
