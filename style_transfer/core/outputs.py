"""What a folder of outputs says of itself: a protocol and a data set, by its manifest or by the flags"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from evaluation.answers.claims import MANIFEST
from evaluation.core import flags
from evaluation.core.errors import UserError
from evaluation.core.files import read_json
from evaluation.protocol import from_manifest
from style_transfer import protocol as protocols
from style_transfer.core.cli import is_mini


class Outputs(NamedTuple):
    """`manifest`: {} if another program made the folder."""

    protocol: protocols.TransferProtocol
    data: str
    manifest: dict


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those that `read_outputs` looks at."""
    parser.add_argument("--data", type=flags.data_set, help="data set (default: as the manifests say)")
    parser.add_argument("--protocol", help="of folders without manifest (default: transfer, transfer-mini)")
    parser.add_argument("--styles", nargs="+", help="only these")
    parser.add_argument("--objects", nargs="+", help="only these")


def read_outputs(folder: Path, args) -> Outputs:
    """Of flags `data`, `protocol`, `styles`, `objects`. Raises UserError if they do not fit the folder."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one of outputs {{style}}/{{object}}_test19_ref1.png")
    manifest = read_json(path, protocol=dict | None) if path.exists() else {}
    if manifest and not manifest["protocol"]:
        raise UserError(f"{folder}: holds pictures of one's own; only the benchmark's have a ground truth")
    data = args.data or (read_json(path, data=str)["data"] if manifest else None)
    if not data:
        raise UserError(f"{folder}: no {MANIFEST} that names the data set; give --data")
    if manifest:
        protocol = from_manifest(manifest["protocol"], str(path), protocols.TransferProtocol)
        if args.protocol and protocols.load(args.protocol).hash != protocol.hash:
            other = f"{path} names protocol {protocol.name}"
            raise UserError(f"--protocol {args.protocol}: {other}; leave it out")
    else:
        jpg = any(folder.glob("*/*.jpg"))
        name = "transfer-mini" if is_mini(data) else "transfer-published" if jpg else "transfer"
        protocol = replace(protocols.load(args.protocol or name), format="jpg" if jpg else "png")
    protocols.chosen(args.styles, protocol.styles, "--styles")
    protocols.chosen(args.objects, protocol.objects, "--objects")
    return Outputs(protocol, data, manifest)
