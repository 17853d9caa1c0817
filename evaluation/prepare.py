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
import os
import re
from concurrent.futures import as_completed
from itertools import product
from pathlib import Path

from tqdm import tqdm

from evaluation import canvas
from evaluation.canvas import image_path
from evaluation.core import flags
from evaluation.core.errors import UserError, command, printable
from evaluation.core.files import atomic, check_keys, file_digest, read_json, write_json
from evaluation.core.owner import alone
from evaluation.core.pools import processes, threads
from evaluation.data import parquet
from evaluation.data.folder import IMAGE, PREPARED, names_in, numbered
from evaluation.data.pictures import read_picture, square

SUMS = "SHA256SUMS"
SUM = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>\w+/\w+/\d+\.jpg)")  # no name leads out of the folder


def jobs(data: Path) -> tuple[list[tuple[Path | None, dict]], list[str]]:
    """(shard, {row: its name}), or (None, {row: file} of one cell) of a folder: what one process does at a
    time. And images that cannot be told to be one row's."""
    if files := parquet.shard_files(data):
        shards = parquet.rows_by_shard(files)
        return [(shard, {row: image_path(data, *row) for row in rows}) for shard, rows in shards.items()], []
    cells, faults = [], []
    for cell in product(parquet.KNOWN, canvas.OBJECTS):
        images = numbered(folder := data.joinpath(*cell))
        rows = {(*cell, number): paths[0] for number, paths in images.items() if len(paths) == 1}
        known = {path.name for path in rows.values()}
        others = filter(IMAGE.fullmatch, names_in(folder))
        faults += [f"{folder / name}: no number, or that of another" for name in others if name not in known]
        cells += [(None, dict(sorted(rows.items())))] * bool(rows)
    if not cells:
        raise UserError(f"{data}: holds no images of the data set; see python -m evaluation.check {data}")
    return cells, faults


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


def work(out: Path, size: int, shard: Path | None, rows: dict, known: set[str]):
    """One job -> {image: SHA-256} of those made or not `known`, and what could not be made."""
    sums, faults, names = {}, [], [str(image_path("", *row)) for row in rows]
    missing = {name for name in names if not (out / name).exists()}
    contents = parquet.images_of(shard) if shard and missing else rows.values()
    try:
        for name, source, content in zip(names, rows.values(), contents, strict=True):
            try:
                if name in missing:
                    shrink(content, source, out / name, size)
                if name in missing or name not in known:
                    sums[name] = file_digest(out / name, 64)
            except UserError as error:
                faults.append(str(error))
    except UserError as error:  # the rest of a shard cannot be read
        faults.append(str(error))
    return sums, faults


def sum_lines(out: Path) -> list[str]:
    path = out / SUMS
    return path.read_bytes().decode(errors="replace").splitlines() if path.exists() else []


def read_sums(out: Path) -> dict[str, str]:
    """{image: SHA-256}, without damaged lines."""
    matches = [match for match in map(SUM.fullmatch, sum_lines(out)) if match]
    return {match["name"]: match["digest"] for match in matches}


def claim(out: Path, card: dict) -> None:
    """Makes `out` a folder of prepared images; raises UserError if it holds others."""
    path, size, images = out / PREPARED, card["size"], card["images"]
    if not path.exists() and names_in(out):
        raise UserError(f"{out}: not empty and not made by this command; choose another folder")
    held = card | {"images": {}} | (read_json(path, size=int) if path.exists() else {})
    check_keys(path, held, {"images": dict, "source": str})
    if held["size"] != size:
        raise UserError(f"--size {size}: {out} holds images of {held['size']} pixels; choose another folder")
    known = held["images"]
    if others := [name for name in known if known[name] != images.get(name) and (out / name).exists()]:
        raise UserError(
            f"{out}: was made from {held['source']}; {card['source']} has not the same {others[0]} and "
            f"{len(others) - 1} others; choose another folder"
        )
    write_json(path, card | {"images": known | images})


def source(file: Path, shard: Path | None):
    """What an image is made from, wherever it lies: bytes of its file, or name and bytes of its shard."""
    if shard:
        return [shard.name, shard.stat().st_size]
    return file.stat().st_size if file.exists() else None


def prepare(data: Path, out: Path, size: int, workers: int) -> None:
    todo, faults = jobs(data)
    images = {
        str(image_path("", *row)): source(file, shard) for shard, rows in todo for row, file in rows.items()
    }
    card = {"size": size, "format": "JPEG, quality 95, no chroma subsampling", "source": str(data)}
    with alone(out, "OUT"):
        claim(out, card | {"images": images})
        sums = read_sums(out)
        known = {*sums}
        with processes(workers) as pool, tqdm(total=len(images), disable=None) as bar:
            running = {pool.submit(work, out, size, shard, rows, known): len(rows) for shard, rows in todo}
            for job in as_completed(running):
                made, failed = job.result()
                sums, faults = sums | made, faults + failed
                bar.update(running[job])
        with atomic(out / SUMS) as temporary:
            temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    if faults:
        print(printable("\n".join(faults[:10])))
        raise UserError(
            f"{out}: {len(sums)} images are ready, {len(faults)} could not be made, the first above"
        )
    print(f"{out}: {len(sums)} images of {size} pixels")


def verify(out: Path) -> None:
    """Raises UserError if an image is not what SHA256SUMS says."""
    sums, damaged = read_sums(out), [line for line in sum_lines(out) if not SUM.fullmatch(line)]
    if not sums and not damaged:
        raise UserError(f"{out}: no {SUMS}; run the command that prepares it to its end")
    with threads() as pool:
        digests = pool.map(lambda name: (out / name).is_file() and file_digest(out / name, 64), sums)
        digests = tqdm(digests, "verify", len(sums), disable=None)
        wrong = damaged + [name for name, digest in zip(sums, digests) if digest != sums[name]]
    if wrong:
        print(printable("\n".join(wrong[:10])))
        count = f"{len(wrong)} of {len(sums) + len(damaged)} images are missing or changed"
        raise UserError(f"{out}: {count}, the first above; remove them and prepare again")
    print(f"{out}: {len(sums)} images, all as they were written")


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.prepare", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the data set (with --verify: the copy)")
    parser.add_argument("out", type=flags.new_path, nargs="?", help="folder that receives the copy")
    size = flags.whole(1, 4096)
    parser.add_argument("--size", type=size, default=512, help="pixels of both sides (default 512)")
    workers = flags.whole(1, 1024)
    parser.add_argument("--workers", type=workers, default=os.cpu_count(), help="processes (one a core)")
    parser.add_argument("--verify", action="store_true", help="only compare a copy with its SHA256SUMS")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse(argv)
    if args.verify:
        return verify(Path(args.out or args.data))
    if args.out is None:
        raise UserError("OUT is missing: name the folder that receives the copy")
    prepare(args.data, Path(args.out), args.size, args.workers)


if __name__ == "__main__":
    main()
