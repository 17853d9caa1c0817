"""Tables of rows that several processes make: a block's are kept as they come, and joined in the end."""

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from evaluation.answers.claims import claimed
from evaluation.core.errors import UserError, brief
from evaluation.core.files import atomic

PARTS = ".blocks"  # in the table's folder until it is finished


class Table(NamedTuple):
    """A kind of CSV file; its rows as texts and back, which raises ValueError."""

    file: str
    columns: list[str]
    values_of: Callable
    row_of: Callable
    kind: str  # attack or probe: the key of its settings in the manifest

    @property
    def maker(self) -> str:
        """The module that makes it."""
        return f"machine_unlearning.{self.kind}"

    def write(self, folder: str | Path, rows: list) -> None:
        """Same rows, same bytes."""
        with (
            atomic(Path(folder) / self.file) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            # tokens may spell any byte, and a lone carriage return outside quotes ends a line for readers
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writerow(self.columns)
            writer.writerows(map(self.values_of, rows))

    def read(self, folder: str | Path) -> list:
        """The rows; raises UserError for a file that is missing or damaged."""
        path = Path(folder) / self.file
        if not path.exists():
            raise UserError(f"{folder}: no {self.file}; make it with python -m {self.maker}")
        try:
            with open(path, newline="", encoding="utf-8") as file:
                header, *lines = [*csv.reader(file, strict=True)] or [[]]
            if header != self.columns or not lines:
                raise ValueError("not its columns, or no rows")
            return list(map(self.row_of, lines))
        except (ValueError, csv.Error) as error:
            remedy = f"remove the folder and run python -m {self.maker} again"
            raise UserError(f"{path}: damaged ({brief(error)}); {remedy}") from error


class Blocks:
    """Items of a table, at most `size` a block. Until all are made, each block has a folder of its own."""

    def __init__(self, folder: Path, table: Table, items: list, size: int):
        self.folder, self.table = folder, table
        self.items = {n: items[start : start + size] for n, start in enumerate(range(0, len(items), size))}

    def part(self, number: int) -> Path:
        return self.folder / PARTS / str(number)

    def done(self, number: int) -> bool:
        return self.finished or (self.part(number) / self.table.file).exists()

    @property
    def finished(self) -> bool:
        return (self.folder / self.table.file).exists()

    def todo(self) -> Iterator[tuple]:
        """(claim, number, items) of the blocks that no one has made, as `claims.claimed`."""
        for claim, number in claimed(self.folder, ((n, n) for n in self.items), self.done):
            yield claim, number, self.items[number]

    def join(self) -> None:
        """Writes the table, in the order of the items, if all blocks are made."""
        for _ in claimed(self.folder, [("table", None)], lambda _: self.finished):
            if all(map(self.done, self.items)):
                rows = [row for number in self.items for row in self.table.read(self.part(number))]
                self.table.write(self.folder, rows)
                shutil.rmtree(self.folder / PARTS)
