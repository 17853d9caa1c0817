"""A smaller copy of the data set, made once: decoding images of 3 MB is what training would wait for

    python -m evaluation.prepare DATA OUT --size 512 [--workers 8]
    python -m evaluation.prepare --verify OUT

DATA is a folder, or the published parquet shards. OUT has the layout of the folder, so everything reads it
as `--data OUT`: central squares, resized by `data.pictures.square`, as JPEG of quality 95 without chroma
subsampling. Next to the loss of the originals, JPEGs many times larger, theirs is small (a mean error of one
to three grey levels of 255, less the smoother the image), for a third to a half of PNG's bytes and a third of
its time to decode. Train on the copy; measure FID on the originals.

An image is written whole or not at all and never made again, so a command that was stopped goes on where it
was, and refuses another source. `prepared.json` names the size and what every image was made from, by its
bytes; `SHA256SUMS` every image (`sha256sum -c` reads it too).
"""

import argparse
import io
import json
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from itertools import groupby, product
from pathlib import Path

from tqdm import tqdm

from evaluation import canvas
from evaluation.canvas import image_path
from evaluation.core.errors import UserError, command
from evaluation.core.files import atomic, file_digest, write_json
from evaluation.data import parquet
from evaluation.data.images import PREPARED
from evaluation.data.pictures import read_picture, square

SUMS = "SHA256SUMS"


def jobs(data: Path) -> list[tuple[Path | None, list]]:
    """(shard, its rows), or (None, rows of one cell) of a folder: what one process does at a time."""
    if files := parquet.shard_files(data):
        return list(parquet.rows_by_shard(files).items())
    paths = {cell: data.joinpath(*cell).glob("*.jpg") for cell in product(parquet.KNOWN, canvas.OBJECTS)}
    rows = [(*cell, int(path.stem)) for cell in paths for path in paths[cell] if path.stem.isdecimal()]
    if not rows:
        raise UserError(f"{data}: holds no images of the data set; see python -m evaluation.check {data}")
    return [(None, list(cell)) for _, cell in groupby(sorted(rows), lambda row: row[:2])]


def shrink(content, source: Path, path: Path, size: int) -> None:
    """Writes the square of `source`, which holds `content`; raises UserError rather than enlarge it."""
    image, jpeg = read_picture(content, source), io.BytesIO()
    if min(image.size) < size:
        raise UserError(
            f"{source}: has {image.width} x {image.height} pixels, --size {size} would enlarge it"
        )
    square(image, size).save(jpeg, "JPEG", quality=95, subsampling=0)
    with atomic(path) as temporary:
        temporary.write_bytes(jpeg.getvalue())


def work(data: Path, out: Path, size: int, shard: Path | None, rows: list, known: set[str]):
    """One job -> {image: SHA-256} of those made or not `known`, and what could not be made."""
    sums, faults, names = {}, [], [str(image_path("", *row)) for row in rows]
    missing = {name for name in names if not (out / name).exists()}
    contents = parquet.read(shard, ["image.bytes"], batch=8) if shard and missing else ({} for _ in rows)
    for name, row in zip(names, contents, strict=True):
        try:
            if name in missing:
                shrink(row["image"]["bytes"] if shard else data / name, data / name, out / name, size)
            if name in missing or name not in known:
                sums[name] = file_digest(out / name, 64)
        except UserError as error:
            faults.append(str(error))
    return sums, faults


def read_sums(out: Path) -> dict[str, str]:
    lines = (out / SUMS).read_text().splitlines() if (out / SUMS).exists() else []
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def claim(out: Path, card: dict) -> None:
    """Makes `out` a folder of prepared images; raises UserError if it holds others."""
    path, size, images = out / PREPARED, card["size"], card["images"]
    if not path.exists() and out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty and not made by this command; choose another folder")
    held = json.loads(path.read_text()) if path.exists() else card
    if held["size"] != size:
        raise UserError(f"--size {size}: {out} holds images of {held['size']} pixels; choose another folder")
    known = held.get("images", {})
    if others := [name for name in known if known[name] != images.get(name) and (out / name).exists()]:
        raise UserError(
            f"{out}: was made from {held['source']}; {card['source']} has not the same {others[0]} and "
            f"{len(others) - 1} others; choose another folder"
        )
    write_json(path, card | {"images": known | images})


def source(data: Path, row, shard: Path | None):
    """What an image is made from, wherever it lies: bytes of its file, or name and bytes of its shard."""
    return [shard.name, shard.stat().st_size] if shard else image_path(data, *row).stat().st_size


def prepare(data: Path, out: Path, size: int, workers: int) -> None:
    todo = jobs(data)
    images = {str(image_path("", *row)): source(data, row, shard) for shard, rows in todo for row in rows}
    card = {"size": size, "format": "JPEG, quality 95, no chroma subsampling", "source": str(data)}
    claim(out, card | {"images": images})
    sums, faults, known = read_sums(out), [], set(read_sums(out))
    with ProcessPoolExecutor(workers) as pool, tqdm(total=len(images), disable=None) as bar:
        running = {pool.submit(work, data, out, size, shard, rows, known): len(rows) for shard, rows in todo}
        for job in as_completed(running):
            made, failed = job.result()
            sums, faults = sums | made, faults + failed
            bar.update(running[job])
    with atomic(out / SUMS) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    if faults:
        print(*faults[:10], sep="\n")
        raise UserError(
            f"{out}: {len(sums)} images are ready, {len(faults)} could not be made, the first above"
        )
    print(f"{out}: {len(sums)} images of {size} pixels")


def verify(out: Path) -> None:
    """Raises UserError if an image is not what SHA256SUMS says."""
    sums = read_sums(out)
    if not sums:
        raise UserError(f"{out}: no {SUMS}; run the command that prepares it to its end")
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: (out / name).exists() and file_digest(out / name, 64), sums)
        digests = tqdm(digests, "verify", len(sums), disable=None)
        wrong = [name for name, digest in zip(sums, digests) if digest != sums[name]]
    if wrong:
        print(*wrong[:10], sep="\n")
        count = f"{len(wrong)} of {len(sums)} images are missing or changed"
        raise UserError(f"{out}: {count}, the first above; remove them and prepare again")
    print(f"{out}: {len(sums)} images, all as they were written")


@command
def main(argv=None):
    parser = argparse.ArgumentParser("python -m evaluation.prepare", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the data set (with --verify: the copy)")
    parser.add_argument("out", type=Path, nargs="?", help="folder that receives the copy")
    parser.add_argument("--size", type=int, default=512, help="pixels of both sides (default 512)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--verify", action="store_true", help="only compare a copy with its SHA256SUMS")
    args = parser.parse_args(argv)
    if args.verify:
        return verify(args.out or args.data)
    if args.out is None:
        raise UserError("OUT is missing: name the folder that receives the copy")
    prepare(args.data, args.out, args.size, args.workers)


if __name__ == "__main__":
    main()
