"""Two transfers without a network, below which no method should fall

    python -m style_transfer.trivial content --data mini --out runs/mini/content
    python -m style_transfer.trivial statistics --data mini --out runs/mini/statistics

`content` leaves the content as it is. `statistics` gives its red, green and blue the mean and deviation that
they have in the style image. Flags and outputs: `core/cli.py`.
"""

import argparse
import sys

from evaluation.core.errors import UserError, closest, command, early
from style_transfer.core import cli
from style_transfer.table import TRIVIAL


def parse(argv=None) -> argparse.Namespace:
    name, *argv = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        raise SystemExit
    if name not in TRIVIAL:
        raise UserError(f"{name or 'no transfer named'}: no trivial transfer; {closest(name, TRIVIAL)}")
    args = cli.transfer_parser("trivial", __doc__).parse_intermixed_args(argv)
    args.method = name
    return cli.check_transfer(args, {}, {})


early(__name__, parse)

from torch import nn

from style_transfer.core.blocks import adain, mean_std
from style_transfer.transfer import transfer


class Content(nn.Module):
    """The style counts for nothing."""

    multiple = style_multiple = 1

    def encode_content(self, images):
        return images

    def encode_style(self, images):
        return mean_std(images)

    def decode(self, content, style):
        return content


class Statistics(Content):
    """AdaIN of the pixels."""

    def decode(self, content, style):
        return adain(content, *style)


TRANSFERS = dict(zip(TRIVIAL, (Content, Statistics)))


@command
def main(argv=None):
    args = parse(argv)
    transfer(args, TRANSFERS[args.method](), {})


if __name__ == "__main__":
    main()
