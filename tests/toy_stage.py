"""A stage for tests of jobs: `main([FILE, SECONDS, WORD])` writes a file, fails, or waits to be killed."""

import time
from pathlib import Path


def main(argv):
    file, seconds, word = Path(argv[0]), float(argv[1]), " ".join(argv[2:])
    with open(file.with_suffix(".begun"), "a") as begun:
        begun.write("x")
    if word == "fail":
        raise RuntimeError(f"{file.name} cannot be made")
    if not file.exists():
        time.sleep(seconds)
        file.write_text(word)
