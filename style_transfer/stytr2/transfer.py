"""Paints pictures, or the contents of the benchmark, with StyTr2; flags and outputs: `core/cli.py`

    python -m style_transfer.stytr2.transfer --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.stytr2.transfer --weights DIR --data mini --out runs/style_transfer/stytr2

It has no options.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__, __file__)

from style_transfer.core import painting
from style_transfer.stytr2 import model


@command
def main(argv=None):
    painting.main(cli.parse_transfer(__doc__, __file__, argv), model)


if __name__ == "__main__":
    main()
