"""What was done before an interruption: one line a file, kept beside what is written of them.

The record is hidden in the output folder. Its first line says of which settings everything there
is; then comes a line for each file of which everything was written, and at the end one that says
that nothing was left. ``measurements.csv`` and ``contours.json`` are made of it.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from anatosegnet.data.checksum import sha256
from anatosegnet.data.dicom import MOST_FRAMES
from anatosegnet.errors import UserError, reason
from anatosegnet.files import opening
from anatosegnet.files.locks import lock
from anatosegnet.files.rows import row_text, write_rows
from anatosegnet.files.writing import replacing
from anatosegnet.prediction.inputs import Source
from anatosegnet.prediction.measurements import COLUMNS
from anatosegnet.prediction.opening import file_of, open_runs, views_of

RECORD, LOCK = ".prediction.jsonl", ".prediction.lock"
TABLE, CONTOURS = "measurements.csv", "contours.json"
VERSION = 1
END: dict[str, Any] = {"finished": True}


def settings_of(config: DictConfig, kinds: tuple[str, ...]) -> dict[str, Any]:
    """What masks depend on, beside the images: the networks by their content, views, outputs."""
    file = file_of(config)
    files = [file] if file else [run.best_path for run in open_runs(config.run, "run=DIR")]
    networks = [_digest(path) for path in files]
    views = list(views_of(config.tta))
    return {"version": VERSION, "networks": networks, "tta": views, "write": list(kinds)}


def _digest(path: Path) -> str:
    try:
        return sha256(path)[:16]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)})") from error


class Record:
    """The files that are done, in a folder that no other process writes meanwhile.

    Args:
        folder: Of the outputs; it is made.
        settings: From `settings_of`.
        overwrite: Begin anew where they are others, or where everything was done.

    Attributes:
        is_new: Whether nothing was done here before.
        done: Names of the files that are done.

    Raises:
        UserError: Other settings made what is there, or another process is at it.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
        self.folder, self.settings = folder, settings
        self.path = folder / RECORD
        self.done: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self._held = os.open(
            folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666
        )
        if lock(self._held) is False:
            os.close(self._held)
            raise UserError(f"output={folder}: another process is predicting into it")
        self._files: list[Any] = []
        try:
            before = next(self._lines(), None)
            self.is_new = before is None
            if before is not None and before.get("settings") != settings and not overwrite:
                raise UserError(
                    f"{folder} holds what was predicted with other settings "
                    f"({_differences(before.get('settings'), settings)}); give another "
                    "output=DIR, or overwrite=true"
                )
            self._anew = before is None or before.get("settings") != settings
            self._anew |= overwrite and any(line == END for line in self._lines())
        except BaseException:
            self.close()
            raise

    def begin(self, paths: Mapping[str, Path], written: Callable[[str, int], bool]) -> None:
        """Look what is done, forget what is not whole, and make ready for more.

        Args:
            paths: The files to do, by name.
            written: Whether everything of a file of this name and number of frames is there.
        """
        stamps = {name: stamp(path) for name, path in paths.items()}
        table = self.folder / TABLE
        with (
            replacing(self.path) as new,
            replacing(table) as rows,
            new.open("w", encoding="utf-8") as record,
            rows.open("w", newline="", encoding="utf-8", errors="backslashreplace") as csv,
        ):
            record.write(_line({"settings": self.settings}))
            write_rows(csv, COLUMNS, [])
            for line in () if self._anew else self._lines():
                name = line.get("name")
                if name is None or name in self.done:
                    continue
                # of files that are not given now, everything stays
                if name in stamps and (
                    line.get("failed")
                    or line.get("stamp") != stamps[name]
                    or not written(name, line["frames"])
                ):
                    continue
                self.done.add(name)
                record.write(_line(line))
                csv.writelines(row_text(row) for row in line["rows"])
        self._files = [
            self.path.open("a", encoding="utf-8"),
            table.open("a", newline="", encoding="utf-8", errors="backslashreplace"),
        ]

    def add(self, source: Source) -> None:
        """A file is done; everything of it is written."""
        record, csv = self._files
        record.write(
            _line(
                {
                    "name": source.name,
                    "file": source.path.name,
                    "stamp": stamp(source.path),
                    "frames": source.dicom.frames if source.dicom else 1,
                    "failed": source.failed,
                    "rows": source.rows,
                    "contours": source.contours,
                }
            )
        )
        record.flush()
        csv.write("".join(row_text(row) for row in source.rows))
        csv.flush()

    def finish(self, whole: bool) -> None:
        """Nothing more will come, and nothing is missing (``whole``): `CONTOURS` are written."""
        if "contours" in self.settings["write"]:
            with replacing(self.folder / CONTOURS) as path, path.open("w") as file:
                for part in coco(self._lines):
                    file.write(part)
        if whole:
            self._files[0].write(_line(END))
            self._files[0].flush()

    def close(self) -> None:
        """Let other processes go on here."""
        for file in self._files:
            file.close()
        (self.folder / LOCK).unlink(missing_ok=True)
        os.close(self._held)

    def _lines(self) -> Iterator[dict[str, Any]]:
        """What the record holds, up to a line that was cut off."""
        try:
            file = opening.open_file(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({reason(error)})") from error
        with file:
            for text in file:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    return
                if not text.endswith(b"\n") or not _is_whole(line):
                    return
                yield line


def coco(lines: Callable[[], Iterator[Mapping[str, Any]]]) -> Iterator[str]:
    """A file of COCO, in pieces, from the lines of a record."""
    yield '{"info": {"description": "predicted by AnatoSegNet"},\n'
    yield '"categories": [{"id": 1, "name": "lesion"}],\n"images": ['
    number = 0
    for line in lines():
        for picture in line.get("contours", ()):
            number += 1
            yield ",\n" if number > 1 else "\n"
            yield json.dumps({"id": number, **picture["image"]})
    yield '],\n"annotations": ['
    number = lesion = 0
    for line in lines():
        for picture in line.get("contours", ()):
            number += 1
            for annotation in picture["annotations"]:
                lesion += 1
                yield ",\n" if lesion > 1 else "\n"
                yield json.dumps({"id": lesion, "image_id": number, **annotation})
    yield "]}\n"


def stamp(path: Path) -> list[int]:
    """Size and time of a file, by which it is known for the same; of none, nothing."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _is_whole(line: object) -> bool:
    """Whether a line is one of a record; whatever else may stand there is none."""
    if not isinstance(line, dict) or "name" not in line:
        return isinstance(line, dict)
    rows, pictures, frames = line.get("rows"), line.get("contours"), line.get("frames")
    return (
        isinstance(line["name"], str)
        and isinstance(frames, int)
        and 0 < frames <= MOST_FRAMES
        and isinstance(rows, list)
        and all(isinstance(row, list) for row in rows)
        and isinstance(pictures, list)
        and all(isinstance(one, dict) and _is_picture(**one) for one in pictures)
    )


def _is_picture(image: object = None, annotations: object = None, **_: object) -> bool:
    return (
        isinstance(image, dict)
        and isinstance(annotations, list)
        and all(isinstance(one, dict) for one in annotations)
    )


def _differences(before: object, now: Mapping[str, Any]) -> str:
    if not isinstance(before, Mapping):
        return "of another version"
    return ", ".join(name for name in now if before.get(name) != now[name]) or "of another version"
