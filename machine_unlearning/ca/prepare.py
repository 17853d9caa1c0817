"""What CA makes for several targets of a base model at once, kept in `.cache/unlearncanvas/`

    python -m machine_unlearning.ca.prepare --model MODEL [--target Sketch,Rust] [flags of train.py but --out]

The anchor images that two of the targets share, as all styles do. A training makes what is missing itself.
Several of these commands, or of trainings, share the work.
"""

from evaluation.core.errors import Finished, command, early
from machine_unlearning.ca.prompts import caption_rows
from machine_unlearning.core import cli


def parse(argv=None):
    """-> flags and settings of the first training; (settings, prompts) of anchor images."""
    trainings = cli.parse_apart(__doc__, __file__, argv)
    return trainings[0], cli.shared_prompts(trainings, lambda args: [row[0] for row in caption_rows(args)])


early(__name__, parse)  # before the slow imports

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.environment import find_device
from machine_unlearning.core import weights
from machine_unlearning.core.generated import generated_moments


@command
def main(argv=None):
    args, shared = parse(argv)
    if not shared:
        raise Finished("ca: no two of these targets share images")
    sd = load_sd(args.model, find_device(args.device), config=args.config)
    weights.begin(sd, args)
    for settings, anchors in shared:
        generated_moments(sd, anchors, settings, flip=True)


if __name__ == "__main__":
    main()
