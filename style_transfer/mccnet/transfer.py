"""Paints pictures, or the contents of the benchmark, with MCCNet; flags and outputs: `core/cli.py`

    python -m style_transfer.mccnet.transfer --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.mccnet.transfer --weights DIR --data mini --out runs/style_transfer/mccnet

Options: strength=0.5 blends with the content as its own style.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__, __file__)

from style_transfer.core import painting
from style_transfer.mccnet import model


@command
def main(argv=None):
    painting.main(cli.parse_transfer(__doc__, __file__, argv), model)


if __name__ == "__main__":
    main()
