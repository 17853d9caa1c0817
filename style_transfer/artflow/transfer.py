"""Paints pictures, or the contents of the benchmark, with ArtFlow; flags and outputs: `core/cli.py`

    python -m style_transfer.artflow.transfer --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.artflow.transfer --weights DIR --data mini --out runs/style_transfer/artflow

Options: operator=adain or wct, as the weights were trained for; strength=0.5 blends latents, at 0 the content
comes back.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__, __file__)

from style_transfer.artflow import model
from style_transfer.core import painting


@command
def main(argv=None):
    painting.main(cli.parse_transfer(__doc__, __file__, argv), model)


if __name__ == "__main__":
    main()
