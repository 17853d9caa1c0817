"""Results of the miniature under its present fingerprint, which hashes more of the same model

    python scripts/convert_results.py OLD NEW [ROOT ...]

Rewrites OLD as NEW in the text files below each ROOT and in the first line of predictions, whose rows keep
their bytes. Refuses to start if checkpoints/mini is not NEW.
"""

import argparse
import gzip
from pathlib import Path

from diffusion_model_finetuning.core.sd import load_sd
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic


def converted(path: Path, old: bytes, new: bytes) -> bytes:
    """A file's content, with the fingerprint replaced where it is quoted."""
    content = path.read_bytes()
    if path.name != "predictions.csv.gz":
        return content.replace(old, new)
    source, end, rows = gzip.decompress(content).partition(b"\n")
    return gzip.compress(source.replace(old, new) + end + rows, mtime=0) if old in source else content


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="fingerprint that the results quote")
    parser.add_argument("new", help="fingerprint of the same model now")
    parser.add_argument("roots", nargs="*", type=Path, default=[Path("results/mini")])
    args = parser.parse_args(argv)
    if (now := load_sd("checkpoints/mini").fingerprint()) != args.new:
        raise UserError(f"NEW {args.new}: the fingerprint of checkpoints/mini is {now}")
    count = 0
    for path in sorted(path for root in args.roots for path in root.rglob("*")):
        if path.suffix not in (".json", ".gz"):
            continue
        content = converted(path, args.old.encode(), args.new.encode())
        if content != path.read_bytes():
            count += 1
            with atomic(path) as temporary:
                temporary.write_bytes(content)
    print(f"{count} files rewritten")


if __name__ == "__main__":
    main()
