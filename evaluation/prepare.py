"""A smaller copy of the data set, made once: decoding images of 3 MB is what training would wait for

    python -m evaluation.prepare DATA OUT --size 512 [--workers 8]
    python -m evaluation.prepare --verify OUT

DATA is a folder, or the published parquet shards. OUT has the layout of the folder, so everything reads it
as `--data OUT`: central squares, resized as `data.pictures.square` does, as JPEG of quality 95 without
chroma subsampling. The originals are JPEGs themselves, many times larger; next to theirs the loss is small (a
mean error of one to three grey levels of 255, less the smoother the image), for a third to a half of PNG's
bytes and a third of its time to decode. Train on the copy; measure FID on the originals.

An image is written whole or not at all and never made again, so a command that was stopped goes on where it
was, and refuses another source. `prepared.json` names the size and what every image was made from, by its
bytes; `SHA256SUMS` every image (`sha256sum -c` reads it too).
"""

import argparse
import io
import json
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from evaluation import canvas
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
    found = []
    for theme in parquet.KNOWN:
        for obj in canvas.OBJECTS:
            numbers = sorted(int(p.stem) for p in (data / theme / obj).glob("*.jpg") if p.stem.isdecimal())
            found.append((None, [(theme, obj, number) for number in numbers]))
    if not any(rows for _, rows in found):
        raise UserError(f"{data}: holds no images of the data set; see python -m evaluation.check {data}")
    return found


def shrink(image, path: Path, size: int) -> None:
    """Writes the square of a PIL image; raises UserError rather than enlarge it."""
    if min(image.size) < size:
        raise UserError(f"has {image.width} x {image.height} pixels, --size {size} would enlarge it")
    content = io.BytesIO()
    square(image, size).save(content, "JPEG", quality=95, subsampling=0)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getvalue())


def work(data: Path, out: Path, size: int, shard: Path | None, rows: list, known: set[str]):
    """One job -> {image: SHA-256} of those made or not `known`, and what could not be made."""
    sums, faults = {}, []
    names = [image_name(row) for row in rows]
    missing = {name for name in names if not (out / name).exists()}
    contents = parquet.read(shard, ["image.bytes"], batch=8) if shard and missing else ({} for _ in rows)
    for name, row in zip(names, contents, strict=True):
        try:
            if name in missing:
                content = row["image"]["bytes"] if shard else data / name
                shrink(read_picture(content, data / name), out / name, size)
            if name in missing or name not in known:
                sums[name] = file_digest(out / name, 64)
        except UserError as error:
            faults.append(str(error) if str(error).startswith(str(data)) else f"{data / name}: {error}")
    return sums, faults


def read_sums(out: Path) -> dict[str, str]:
    if not (out / SUMS).exists():
        return {}
    return {
        name: digest
        for digest, name in (line.split("  ", 1) for line in (out / SUMS).read_text().splitlines())
    }


def claim(out: Path, card: dict) -> None:
    """Makes `out` a folder of prepared images; raises UserError if it holds others."""
    if (out / PREPARED).exists():
        held = json.loads((out / PREPARED).read_text())
        if held["size"] != card["size"]:
            raise UserError(
                f"--size {card['size']}: {out} holds images of {held['size']} pixels; choose another folder"
            )
        known, images = held.get("images", {}), card["images"]
        others = [name for name in known if known[name] != images.get(name) and (out / name).exists()]
        if others:
            raise UserError(
                f"{out}: was made from {held['source']}; {card['source']} has not the same {others[0]} and "
                f"{len(others) - 1} others; choose another folder"
            )
        card = card | {"images": known | images}
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty and not made by this command; choose another folder")
    write_json(out / PREPARED, card)


def sources(data: Path, todo: list) -> dict:
    """What each image is made from, wherever it lies: bytes of its file, or name and bytes of its shard."""
    of_shard = {shard: [shard.name, shard.stat().st_size] for shard, _ in todo if shard}
    return {
        name: of_shard[shard] if shard else (data / name).stat().st_size
        for shard, rows in todo
        for name in map(image_name, rows)
    }


def image_name(row) -> str:
    theme, obj, index = row
    return f"{theme}/{obj}/{index}.jpg"


def prepare(data: Path, out: Path, size: int, workers: int) -> None:
    todo = jobs(data)
    card = {"size": size, "format": "JPEG, quality 95, no chroma subsampling", "source": str(data)}
    claim(out, card | {"images": sources(data, todo)})
    sums, faults, known = read_sums(out), [], set(read_sums(out))
    with (
        ProcessPoolExecutor(workers) as pool,
        tqdm(total=sum(len(rows) for _, rows in todo), disable=None) as bar,
    ):
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
        found = pool.map(lambda name: (out / name).exists() and file_digest(out / name, 64), sums)
        found = tqdm(found, "verify", len(sums), disable=None)
        wrong = [name for name, digest in zip(sums, found) if digest != sums[name]]
    if wrong:
        print(*wrong[:10], sep="\n")
        raise UserError(
            f"{out}: {len(wrong)} of {len(sums)} images are missing or changed, the first above; "
            "remove them and prepare again"
        )
    print(f"{out}: {len(sums)} images, all as they were written")


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.prepare", description="A smaller copy of the data set, made once."
    )
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
