"""Paints pictures, or the contents of the benchmark, with IE-ContraAST; flags and outputs: `core/cli.py`

    python -m style_transfer.ie_contrast.transfer --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.ie_contrast.transfer --weights DIR --data mini --out runs/ie_contrast

Options: steps=2 paints the output again.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__, __file__)

from style_transfer.core import painting
from style_transfer.ie_contrast import model


@command
def main(argv=None):
    painting.main(cli.parse_transfer(__doc__, __file__, argv), model)


if __name__ == "__main__":
    main()
