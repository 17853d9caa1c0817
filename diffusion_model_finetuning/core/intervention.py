"""What methods do while images are sampled, as data that the sampler and the attack take."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from typing import NamedTuple

import torch


class Intervention(NamedTuple):
    """What a method does while images are sampled. Token ids [B,L], embeddings [B,L,D] are the prompts'."""

    text: Callable = lambda ids, text: text  # (ids, embeddings) -> the embeddings to sample with
    around: Callable = lambda ids, text: nullcontext()  # (ids, embeddings) -> a context the UNet runs in
    # (ids, embeddings, steps) -> edit, or None; edit(i, x, advance) -> the embeddings for step i of
    # 0 ... steps - 1 of latents x; advance(x, embeddings) makes this step of others
    step: Callable | None = None
    # (ids, embeddings) -> what `step` makes of them at a single noise level, without a walk or its latents;
    # a function that can be differentiated; None: nothing
    stepless: Callable | None = None
    touches: Callable | None = None  # ids -> bool [B]: whose image is another than the model's; None: all
    null: str = ""  # the negative prompt
    guidance: float | None = None  # in place of the sampler's


NOTHING = Intervention()


def compose(acts: list[Intervention]) -> Intervention:
    """What several methods do, in their order: each edits the embeddings that those before it left.

    Of the edits of `step`, of `guidance` and of a negative prompt, the last method's that has any is taken.
    """
    if len(acts) < 2:
        return acts[0] if acts else NOTHING

    def chain(functions):
        def edited(ids, text):
            for function in functions:
                text = function(ids, text)
            return text

        return edited

    @contextmanager
    def around(ids, text):
        with ExitStack() as stack:
            for act in acts:
                stack.enter_context(act.around(ids, text))
            yield

    def touches(ids):
        return torch.stack([act.touches(ids) for act in acts]).any(0)

    last = lambda values: next((value for value in reversed(values) if value is not None), None)  # noqa: E731
    steps = [act.step for act in acts if act.step]
    stepless = [act.stepless for act in acts if act.stepless]
    return Intervention(
        text=chain([act.text for act in acts]),
        around=around,
        step=(lambda *words: last([step(*words) for step in steps])) if steps else None,
        stepless=chain(stepless) if stepless else None,
        touches=touches if all(act.touches for act in acts) else None,
        null=last([act.null or None for act in acts]) or "",
        guidance=last([act.guidance for act in acts]),
    )
