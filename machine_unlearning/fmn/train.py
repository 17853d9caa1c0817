"""FMN: Forget-Me-Not (Zhang, Wang, Xu, Wang, Shi, 2023), attention re-steering

Teaches the model to look away from a concept. On noised images of it, with a prompt that contains it, the
attention that all cross-attention layers l, heads h and pixels p pay to the concept's tokens S is made small.

    P_l = softmax(Q K' / sqrt(d))        L = sqrt( sum over l, h, p and s in S of P_l[h,p,s]^2 )

The tokens are learned from the images first (`invert.py`). The predicted noise is not used, nothing is
retained or replaced, and no gradient is stopped: a layer also learns through the layers after it.
"""

from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli


def parse(argv=None):
    args = cli.parse_with_images(__doc__, __file__, argv)
    for key in ("invert_prompt", "prompt"):
        if args.settings[key].count("{tokens}") != 1:
            raise UserError(f"{key}={args.settings[key]}: expected a text with {{tokens}}, once")
    return args


early(__name__, parse)  # before the slow imports

import torch

from diffusion_model_finetuning.core.data import cached_moments, forever
from diffusion_model_finetuning.core.sd import cast_frozen, draw_noise, eps
from evaluation import canvas
from evaluation.core.environment import to_device
from evaluation.core.run import Run
from evaluation.data.images import CanvasImages
from machine_unlearning.core import attention, embeddings, params, weights
from machine_unlearning.fmn.invert import encode, invert, spell


def fmn_loss(maps, positions) -> torch.Tensor:
    """One Euclidean norm over all attention maps [B,heads,pixels,tokens], at token positions [S] alone."""
    chosen = [probabilities[..., positions] for probabilities in maps]
    # of bfloat16 maps too, in float32
    norms = [torch.linalg.vector_norm(m, dtype=torch.promote_types(m.dtype, torch.float32)) for m in chosen]
    return torch.linalg.vector_norm(torch.stack(norms))


def resteered(ids: list[int], places: list[int], end: int, pooler: str) -> list[int]:
    """Positions S of a prompt: the concept's `places`, and none, the first or all of end-of-text (id `end`).

    SD 1.x pads with end-of-text, so `all_eot` adds the whole rest of the prompt.
    """
    ends = [i for i, token in enumerate(ids) if token == end]
    return sorted({*places, *{"none": [], "first_eot": ends[:1], "all_eot": ends}[pooler]})


def assigned(count: int, order: str) -> list[int]:
    """Numbers of the learned embeddings that the tokens <s1>, <s2>, ... get.

    `lexicographic`, as the official port, sorts their names as text: <s10> comes first, so all move by one.
    """
    numbers = list(range(count))
    return numbers if order == "natural" else sorted(numbers, key=lambda i: f"<s{i + 1}>")


def concept_images(args, target: canvas.Target) -> CanvasImages:
    """The first images of every theme and object that show the target."""
    s, world = args.settings, args.world
    cells = [(theme, obj) for theme in world.themes for obj in world.objects if target.covers(theme, obj)]
    return CanvasImages(args.data, cells, canvas.TRAIN[: s.images], s.size)


def learn_concepts(sd, images: list[CanvasImages], prompt, args, run):
    """Inverts each target. -> moments of all images [N,2C,h,w], their prompts' embeddings [N,L,D]."""
    s, order = args.settings, assigned(args.settings.tokens, args.settings.order)
    moments, texts = [], []
    for target, shown in zip(args.targets, images, strict=True):
        both = cached_moments(sd, shown, embeddings.CACHE, flip=True, batch=max(1, 2048 // s.size)).to(
            run.device
        )
        learned = invert(sd, target, both, s, run)
        moments.append(both[: len(shown)])
        texts.append(encode(sd, prompt, learned[order]).expand(len(shown), -1, -1))
    return torch.cat(moments), torch.cat(texts)


@command
def main(argv=None):
    args = parse(argv)
    s, images = args.settings, [concept_images(args, target) for target in args.targets]
    with Run(args, method="fmn") as run:
        sd = weights.load_base(args, run)
        prompt = spell(sd, s.prompt, s.tokens)
        positions = resteered(
            prompt.ids.tolist(), prompt.places.tolist(), sd.tokenizer.eos_token_id, s.pooler
        )
        positions = torch.tensor(positions, device=run.device)
        moments, text = learn_concepts(sd, images, prompt, args, run)
        student = params.trainable(sd.unet, s.scope)
        cast_frozen(sd.unet, s.precision)
        optimizer = torch.optim.AdamW(student.values(), s.lr, weight_decay=0.01, fused=True)
        batches = forever(len(moments), s.batch, args.seed)

        with attention.recorded(sd.unet, lambda name: name.endswith("attn2")) as maps:
            for _ in run.steps(s.steps):
                rows = to_device(next(batches), run.device)
                x0 = sd.sample_moments(moments[rows], run.generator)
                t, noise = (to_device(drawn, run.device) for drawn in draw_noise(sd, x0, run.generator))
                eps(sd.unet, sd.add_noise(x0, noise, t), t, text[rows])
                loss = fmn_loss(maps.values(), positions)
                loss.backward()
                if s.clip:
                    torch.nn.utils.clip_grad_norm_(student.values(), s.clip)
                run.step(optimizer, loss=loss)
        # the last layer's values and all that follows get no gradient, and so no optimizer state
        weights.save_delta(run, sd, [name for name, weight in student.items() if weight in optimizer.state])


if __name__ == "__main__":
    main()
