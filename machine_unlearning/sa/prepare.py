"""What SA makes once for all targets of a base model, kept in `.cache/unlearncanvas/`

    python -m machine_unlearning.sa.prepare --model MODEL [--target Sketch,Cats] [flags of train.py but --out]

Images to rehearse and their Fisher information; of the surrogate images, those that two of the targets share.
A training makes what is missing itself. Several of these commands, or of trainings, share the work.
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli
from machine_unlearning.sa.prompts import replayed, surrogates


def parse(argv=None):
    """-> flags and settings of the first training; prompts to rehearse; (settings, prompts) of surrogates."""
    trainings = cli.parse_apart(__doc__, __file__, argv)
    shared = cli.shared_prompts(trainings, lambda args: surrogates(args)[1])
    return trainings[0], replayed(trainings[0])[0], shared


early(__name__, parse)  # before the slow imports

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.environment import find_device
from machine_unlearning.core import params, weights
from machine_unlearning.core.embeddings import cached_embeddings
from machine_unlearning.core.generated import generated_moments
from machine_unlearning.sa.fisher import cached_fisher


def rehearsal(sd, student: dict, prompts: list[str], s):
    """-> VAE moments and embeddings of what the model draws of the prompts, and F of weights `student`."""
    drawn, text = generated_moments(sd, prompts, s), cached_embeddings(sd, prompts)
    return drawn, text, cached_fisher(sd, student, drawn, text, prompts, s)


@command
def main(argv=None):
    args, prompts, shared = parse(argv)
    s = args.settings
    sd = load_sd(args.model, find_device(args.device), config=args.config)
    weights.begin(sd, args)
    for settings, instead in shared:
        generated_moments(sd, instead, settings)
    student = params.trainable(sd.unet, s.scope)
    if s.checkpointing:
        sd.unet.enable_gradient_checkpointing()
    rehearsal(sd, student, prompts, s)


if __name__ == "__main__":
    main()
