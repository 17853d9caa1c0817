"""Paints pictures, or the contents of the benchmark, with AdaAttN; flags and outputs: `core/cli.py`

    python -m style_transfer.adaattn.transfer --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.adaattn.transfer --weights DIR --data mini --out runs/style_transfer/adaattn

Options: samples=4096 style positions that relu3_1 attends to, seed=6666 of their choice. The official
benchmark script exchanges content and style and saves its input unchanged; that is not offered.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__, __file__)

from style_transfer.adaattn import model
from style_transfer.core import painting


@command
def main(argv=None):
    painting.main(cli.parse_transfer(__doc__, __file__, argv), model)


if __name__ == "__main__":
    main()
