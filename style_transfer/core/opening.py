"""The judges' files: which there are, and the judges made of them, on their device and in their precision"""

from pathlib import Path

from evaluation import canvas
from evaluation.core.errors import UserError
from evaluation.judges import judging as classifiers
from evaluation.judges.classifier import load_classifier
from evaluation.mini.objects import SIZE as MINI_SIZE
from style_transfer.core import embeddings, judges, perceptual, vgg
from style_transfer.protocol import TransferProtocol

DEFAULTS = {  # whether the outputs are the miniature's -> VGG, style classifier, object classifier
    True: ("checkpoints/mini/style_transfer/vgg_normalised.pth", *classifiers.MINI),
    False: ("checkpoints/style_loss_vgg/vgg_normalised.pth", *classifiers.PUBLISHED),
}


def find_files(protocol: TransferProtocol, args) -> dict[str, Path | None]:
    """The judges' files; None for one that is neither named nor where it is looked for. Raises UserError."""
    names = ["vgg", "style_classifier", *(["object_classifier"] if args.variant == "canvas" else [])]
    files, defaults = {}, DEFAULTS[protocol.size == MINI_SIZE]
    for name, default in zip(names, defaults):
        given = getattr(args, name)
        files[name] = Path(given or default) if given or Path(default).exists() else None
    files |= {name: Path(getattr(args, name)) for name in args.extra}
    if not any(files.values()):
        raise UserError(f"nothing to judge with; name --vgg or a classifier, or put {defaults[0]} there")
    return files


def open_judges(protocol, files: dict, stytr2, published: bool, device: str, dtype) -> list[judges.Judge]:
    """All that there are files of; `stytr2`: the network that the published ones paint with. Raises UserError
    for a file that is none, and a classifier that lacks a label."""
    size, miniature, opened, networks = protocol.size, protocol.size == MINI_SIZE, [], []
    encoder = vgg.load_encoder(files["vgg"]).to(device, dtype) if files["vgg"] else None
    known = {"style": [s for s in protocol.styles if s in canvas.STYLES], "object": protocol.objects}
    for task, names in known.items():
        if path := files.get(f"{task}_classifier"):
            networks.append(load_classifier(path, task, device=device).to(dtype))
            classifiers.check_labels(networks[-1], names, str(path), protocol)
    if published:
        opened += [judges.published_vgg(encoder, stytr2, size)] if encoder else []
        return opened + [judges.published_classifier(network) for network in networks]
    opened.append(judges.pixels(size))
    if encoder:
        opened.append(judges.vgg(encoder, size, miniature and "lpips" not in files))
    stand_in = miniature and len(networks) == 2 and "inception" not in files  # for Inception
    opened += [judges.classifier(network, stand_in) for network in networks]
    if "lpips" in files:
        opened.append(judges.lpips(perceptual.load_lpips(files["lpips"]).to(device, dtype), size))
    for kind in ("style", "content"):
        if path := files.get(f"{kind}_encoder"):
            name, embed = embeddings.load(path, f"--{kind}-encoder", device, dtype)
            opened.append(judges.embedding(embed, name, kind, size))
    if "inception" in files:
        opened.append(judges.inception(perceptual.extractor(files["inception"], device), size))
    return opened
