"""The judges: what each of them sees in an image, and which distances it gives an output

A judge sees images in four roles: the output, the ground truth, the photo that the output was made of, and
the reference that it took its style from. All distances are lower for nearer images, and 0 for equal ones.

`published` are the benchmark's two scripts: the output is painted anew by StyTr2, in the style of the ground
truth, before VGG compares; the classifier's images are not normalised. What the ground truth itself would get
is its floor.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from evaluation.judges.classifier import Classifier
from style_transfer.core import losses, perceptual
from style_transfer.core.vgg import Encoder

ROLES = ("output", "truth", "photo", "reference")
OTHER = {"style": "reference", "content": "photo"}  # what is compared -> with what, beside the ground truth


class Judge(NamedTuple):
    """`encode`: role -> function of images [B,3,size,size] in [0,1]; the tensors of the features that it
    returns have a row an image. A role that is not in it is not looked at."""

    size: int  # pixels of a side of its images
    encode: dict[str, Callable]
    compare: Callable  # features of B outputs, of B truths ... by role -> {column: [B]}
    frechet: Callable | None = None  # features -> [B,width], whose distribution FID compares


def pixels(size: int) -> Judge:
    """Root of the mean squared difference of the pixels, in [0,1]; no network's opinion."""

    def compare(output, truth):
        return {"rmse_truth": losses.square(output, truth).sqrt()}

    return Judge(size, dict.fromkeys(("output", "truth"), lambda images: images), compare)


def vgg(encoder: Encoder, size: int, miniature: bool) -> Judge:
    """Style, content and Gram losses; in the miniature, what takes the place of LPIPS."""
    weights = perceptual.equal_weights(encoder) if miniature else []

    def encode(images):
        maps = encoder(images)
        units = perceptual.units(maps) if miniature else ()
        return losses.vgg_features(maps), losses.grams(maps), units

    def encode_reference(images):  # whose places nobody compares
        features, grams, _ = encode(images)
        return features._replace(structure=()), grams

    def compare(output, truth, photo, reference):
        columns = {
            "vgg_style_truth": losses.style_loss(output[0], truth[0]),
            "vgg_style_reference": losses.style_loss(output[0], reference[0]),
            "vgg_content_photo": losses.content_loss(output[0], photo[0]),
            "vgg_content_truth": losses.content_loss(output[0], truth[0]),
            "gram_truth": losses.feature_loss(output[1], truth[1]),
            "gram_reference": losses.feature_loss(output[1], reference[1]),
        }
        if miniature:
            columns["mini-perceptual"] = perceptual.distance(output[2], photo[2], weights)
            columns["mini-perceptual_truth"] = perceptual.distance(output[2], truth[2], weights)
        return columns

    return Judge(size, dict.fromkeys(ROLES, encode) | {"reference": encode_reference}, compare)


def classifier(network: Classifier, miniature: bool) -> Judge:
    """Tokens of the style or object classifier, its embedding, and which label it sees.

    Tokens are compared place by place, so that a style's distance from a reference, which shows other shapes,
    is never near 0.
    """
    kind = {"style": "style", "object": "content"}[network.task]
    other = OTHER[kind]

    def encode(images):
        images = (images - network.mean) / network.std
        embedding, tokens = losses.tokens(network.vit, images)
        return tokens, embedding, network.vit.head(embedding).argmax(1)

    def embed(images):  # for FID alone
        return (), network.features(images)

    def compare(output, truth, **others):
        seen = {"truth": truth, other: others[other]}
        columns = {f"vit_{kind}_{r}": losses.feature_loss(output[0], x[0]) for r, x in seen.items()}
        for role, theirs in seen.items():
            columns[f"embedding_{kind}_{role}"] = losses.cosine_distance(output[1], theirs[1])
        return columns | {f"{network.task}_seen": [network.labels[i] for i in output[2].tolist()]}

    roles = dict.fromkeys(("output", "truth", other), encode)
    if not miniature:
        return Judge(network.size, roles, compare)
    return Judge(network.size, {"reference": embed} | roles, compare, lambda features: features[1])


def lpips(network: nn.Module, size: int) -> Judge:
    """LPIPS of torchmetrics, `perceptual.load_lpips`."""
    weights = [layer.model[1].weight[0] for layer in network.lins]

    def encode(images):
        return perceptual.units(network.net(network.scaling_layer(2 * images - 1)))

    def compare(output, photo, truth):
        named = {"LPIPS": photo, "LPIPS_truth": truth}
        return {name: perceptual.distance(output, other, weights) for name, other in named.items()}

    return Judge(size, dict.fromkeys(("output", "photo", "truth"), encode), compare)


def embedding(embed: Callable, name: str, kind: str, size: int) -> Judge:
    """Cosine distance of the embeddings of CLIP, CSD or DINO; `kind`: style or content."""
    other = OTHER[kind]

    def compare(output, **others):
        return {f"{name}_{kind}_{r}": losses.cosine_distance(output, x) for r, x in others.items()}

    return Judge(size, dict.fromkeys(("output", "truth", other), embed), compare)


def inception(extract: Callable, size: int) -> Judge:
    """Features for FID, `perceptual.extractor`; no column."""
    encode = dict.fromkeys(("output", "reference"), extract)
    return Judge(size, encode, lambda **_: {}, lambda features: features)


def restyled(encoder: Encoder, stytr2: nn.Module, content: tuple, style: tuple) -> tuple:
    """Content and style loss [B] of outputs R that are painted anew in the style of ground truths G.

        O = StyTr2(content R, style G);  content compares O with R, style compares O with G

    `content`: VGG's features of R and StyTr2's `encode_content`; `style`: those of G and its `encode_style`.
    """
    made = losses.vgg_features(encoder(stytr2.decode(content[1], style[1])))
    return losses.content_loss(made, content[0]), losses.style_loss(made, style[0])


def published_vgg(encoder: Encoder, stytr2: nn.Module, size: int) -> Judge:
    """The released script of the VGG losses, and the floor; a ground truth is encoded once."""

    def encode_content(images):
        return losses.vgg_features(encoder(images)), stytr2.encode_content(images)

    def encode_truth(images):
        features, content = encode_content(images)
        style = features, stytr2.encode_style(images)
        return style, restyled(encoder, stytr2, (features, content), style)

    def compare(output, truth):
        style, floor = truth
        made = restyled(encoder, stytr2, output, style)
        names = ("vgg_content", "vgg_style", "vgg_content_floor", "vgg_style_floor")
        return dict(zip(names, (*made, *floor)))

    return Judge(size, {"output": encode_content, "truth": encode_truth}, compare)


def published_classifier(network: Classifier) -> Judge:
    """The released script of the style classifier's loss."""

    def compare(output, truth):
        return {"vit_style": losses.feature_loss(output, truth)}

    encode = dict.fromkeys(("output", "truth"), lambda images: losses.tokens(network.vit, images)[1])
    return Judge(network.size, encode, compare)
