"""Trains a method of style transfer, by the losses and the loop in METHOD/train.py

    python -m style_transfer.train sanet --out runs/train/sanet                           the miniature
    python -m style_transfer.train sanet --data DATA --encoder vgg_normalised.pth --out DIR [steps=1000 ...]
    python -m style_transfer.train sanet --contents COCO --styles WIKIART --encoder vgg_normalised.pth --out
    DIR

A stopped command goes on when it is run again, as if it had not been stopped. Settings are those of
METHOD/config.yaml and train.yaml: `canvas`, the published ones, or `mini`.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli


def parse(argv=None):
    return cli.parse_train(__doc__, argv)


early(__name__, parse)

import importlib

from style_transfer.core.training import Training


@command
def main(argv=None):
    args = parse(argv)
    method = importlib.import_module(f"style_transfer.{args.method}.train")
    with Training(args) as run:
        method.train(run)


if __name__ == "__main__":
    main()
