"""Paints pictures, or the contents of the benchmark, with MAST; flags and outputs: `core/cli.py`

    python -m style_transfer.mast.transfer --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.mast.transfer --weights DIR --data mini --out runs/style_transfer/mast

Options: strength=0.6 is the share of the aligned features, layers=[r41,r31,r21] are the levels, neighbours=5,
dim_thresh=128 is the side beyond which a level is pooled for its alignment.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__, __file__)

from style_transfer.core import painting
from style_transfer.mast import model


@command
def main(argv=None):
    painting.main(cli.parse_transfer(__doc__, __file__, argv), model)


if __name__ == "__main__":
    main()
