"""Damaged files: images, masks, tables, JSON, configs, checkpoints; read as a verb reads them."""

import io
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from fuzzing.attempts import is_one, limit_memory
from fuzzing.configs import verbs
from fuzzing.dicoms import change_element, read_dicom, scans
from fuzzing.exported import (
    change_network,
    in_header,
    in_metadata,
    onnx_file,
    packed_weights,
    read_onnx,
    read_package,
)
from fuzzing.ground import Sandbox
from fuzzing.trials import Result, Trial

SECONDS = 5  # of processor time that reading one file may take
BATCH = 50  # files that one process reads
MEMORY = 2 * 2**30  # bytes that reading them may take
Mutate = Callable[[bytes, random.Random], bytes]


# how files are damaged
def flip_bits(data: bytes, generator: random.Random) -> bytes:
    """One to eight bits, anywhere."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def edit_header(data: bytes, generator: random.Random) -> bytes:
    """A byte among the first 64."""
    changed = bytearray(data)
    changed[generator.randrange(min(64, len(data)))] = generator.choice((0, 1, 127, 128, 254, 255))
    return bytes(changed)


def cut(data: bytes, generator: random.Random) -> bytes:
    """The end is missing."""
    return data[: generator.randrange(len(data))]


def cut_and_closed(data: bytes, generator: random.Random) -> bytes:
    """The end is missing, but for the last bytes, with which the format closes a file."""
    return data[: generator.randrange(len(data) // 2, len(data) - 2)] + data[-2:]


def splice(data: bytes, generator: random.Random) -> bytes:
    """A piece is copied over another place."""
    length = generator.randint(1, max(1, len(data) // 8))
    source, at = (generator.randrange(max(1, len(data) - length)) for _ in range(2))
    return data[:at] + data[source : source + length] + data[at + length :]


def zero(data: bytes, generator: random.Random) -> bytes:
    """A piece is zeros, as after a crash of the system."""
    length = generator.randint(1, max(1, len(data) // 4))
    at = generator.randrange(max(1, len(data) - length))
    return data[:at] + bytes(length) + data[at + length :]


def insert(data: bytes, generator: random.Random) -> bytes:
    """Random bytes are put in."""
    at = generator.randrange(len(data))
    return data[:at] + generator.randbytes(generator.randint(1, 64)) + data[at:]


def leave_out(data: bytes, generator: random.Random) -> bytes:
    """A piece is missing."""
    length = generator.randint(1, max(1, len(data) // 8))
    at = generator.randrange(max(1, len(data) - length))
    return data[:at] + data[at + length :]


BYTES: tuple[Mutate, ...] = (
    flip_bits, flip_bits, edit_header, cut, cut_and_closed, splice, zero, insert, leave_out,
)  # fmt: skip
CELLS = (
    "", " ", "nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "9" * 400, "0x10", "1,5", "½",
    "../../x", "/etc/passwd", "a/b", ".", "..", "con", "=1", "@x", "\t", "a\nb", '"', '"a', "a\0b",
    "x" * 200_000, "é\u202e\x1b[2J", "[/x]", "\ud7ff", "train", "test", "True", "None", "{}", "*",
)  # fmt: skip


def change_cell(data: bytes, generator: random.Random) -> bytes:
    """A cell of a table is another text."""
    lines = data.decode(errors="replace").split("\n")
    row = generator.randrange(len(lines))
    cells = lines[row].split(",")
    cells[generator.randrange(len(cells))] = generator.choice(CELLS)
    lines[row] = ",".join(cells)
    return "\n".join(lines).encode(errors="replace")


def change_rows(data: bytes, generator: random.Random) -> bytes:
    """Rows are twice there, missing, too short, too long, or in another order."""
    lines = data.decode(errors="replace").split("\n")
    row = generator.randrange(len(lines))
    what = generator.randrange(6)
    if what == 0:
        lines.insert(row, lines[generator.randrange(len(lines))])
    elif what == 1:
        del lines[row]
    elif what == 2:
        lines[row] += "," * generator.randint(1, 2000)
    elif what == 3:
        lines[row] = lines[row].partition(",")[0]
    elif what == 4:
        generator.shuffle(lines)
    else:
        lines = lines[:1]
    return "\n".join(lines).encode()


def rewrite(data: bytes, generator: random.Random) -> bytes:
    """The same text in another coding, with other line ends or separators."""
    text = data.decode(errors="replace")
    return generator.choice((
        lambda: text.encode("utf-16"), lambda: text.encode("utf-8-sig"),
        lambda: text.replace("\n", "\r\n").encode(), lambda: text.replace("\n", "\r").encode(),
        lambda: text.replace(",", ";").encode(), lambda: text.replace(",", "\t").encode(),
        lambda: text.upper().encode(), lambda: b"", lambda: b"\n" * 1000,
        lambda: text.encode() + b"\0" * 4096, lambda: b"\xff\xfe" + text.encode(),
        lambda: (text * 40).encode(), lambda: text.replace("\n", "").encode(),
    ))()  # fmt: skip


VALUES: tuple[Any, ...] = (
    None, [], {}, "", "x", -1, 0, 10**30, 1e308, float("nan"), True, [[]], {"a": {"b": []}}, "nan",
    ["x", 1, None], "\x1b[2J", "../../x", {"": None}, "9" * 5000, [None] * 100,
)  # fmt: skip


def change_node(content: Any, generator: random.Random) -> Any:
    """One value of nested lists and dictionaries is another, or is missing."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(content)
    node, key = generator.choice(places)
    if generator.random() < 0.2:
        del node[key]
    else:
        node[key] = generator.choice(VALUES)
    return content


def change_json(data: bytes, generator: random.Random) -> bytes:
    """A value of a JSON file is another."""
    return json.dumps(change_node(json.loads(data), generator)).encode()


def change_yaml(data: bytes, generator: random.Random) -> bytes:
    """A value of a YAML file is another."""
    import yaml

    return yaml.safe_dump(change_node(yaml.safe_load(data), generator)).encode()


TABLE: tuple[Mutate, ...] = (*BYTES, *[change_cell] * 12, *[change_rows] * 6, *[rewrite] * 4)


# what is damaged
def pictures(masks: bool = False) -> dict[str, bytes]:
    """Images, or masks, of every kind, by a name with their suffix."""
    generator = np.random.default_rng(3)
    smooth = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    rgb = cv2.resize(smooth, (100, 120), interpolation=cv2.INTER_CUBIC)
    if masks:  # of two values
        rgb = np.where(rgb[..., :1] > 127, np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    deep = rgb[..., 0].astype(np.uint16) * 257

    def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(rgb).convert(mode)
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    tiff = {name: saved("TIFF", "L", compression=kind) for name, kind in {
        "lzw.tif": "tiff_lzw", "deflate.tif": "tiff_adobe_deflate", "packbits.tif": "packbits",
    }.items()}  # fmt: skip
    return {
        "grey.png": saved("PNG", "L"), "rgb.png": saved("PNG"), "alpha.png": saved("PNG", "RGBA"),
        "palette.png": saved("PNG", "P"), "bits.png": saved("PNG", "1"),
        "deep.png": saved("PNG", "I;16"), "grey.jpg": saved("JPEG", "L"),
        "rgb.jpg": saved("JPEG", quality=92), "progressive.jpg": saved("JPEG", progressive=True),
        "restart.jpeg": saved("JPEG", restart_marker_blocks=4), "grey.bmp": saved("BMP", "L"),
        "rgb.bmp": saved("BMP"), "bits.bmp": saved("BMP", "1"), "raw.tif": saved("TIFF"),
        "deep.tiff": saved("TIFF", "I;16"), **tiff,
    }  # fmt: skip


Reader = Callable[[Path, Sandbox], Any]


def read_picture(path: Path, _: Sandbox) -> Any:
    """As an image; the pixels."""
    from anatosegnet.data.case import read_image

    return read_image(path)


def read_as_mask(path: Path, _: Sandbox) -> Any:
    """As a mask; the pixels."""
    from anatosegnet.data.case import read_mask

    return read_mask(path)


def read_folder(path: Path, box: Sandbox) -> None:
    """A dataset's own tables, with all that depends on them."""
    from anatosegnet.data.datasets.folder import FolderSource
    from anatosegnet.data.prepared import find_data

    find_data(FolderSource(str(box.data)), "folder")


def read_sheet(path: Path, box: Sandbox) -> None:
    """BrEaST's spreadsheet."""
    from anatosegnet.data.datasets.breast_lesions_usg import BreastLesionsUSGSource

    BreastLesionsUSGSource(str(box.data)).find_cases()


def read_split(path: Path, box: Sandbox) -> None:
    """The split of a run, and who is related to whom."""
    from anatosegnet.data.leakage import leaked, recorded_split, require_unchanged
    from anatosegnet.run import Run

    run = Run(box.run)
    require_unchanged(run, recorded_split(run))
    leaked(run, recorded_split(run))


def read_metrics(path: Path, box: Sandbox) -> None:
    """The list of runs, and a study's look at one of its trials."""
    from anatosegnet.run_list import list_runs
    from anatosegnet.tuning.trial import val_iou

    list_runs(box.run)
    val_iou(path)


def read_scores(path: Path, box: Sandbox) -> None:
    """What a comparison and a report read of an evaluation."""
    from anatosegnet.evaluation.tables import read_scores
    from anatosegnet.report.reading import Evaluation

    read_scores(box.run / "evaluation" / "folder" / "scores.csv")
    Evaluation.read(box.run / "evaluation" / "folder")


def read_summary(path: Path, box: Sandbox) -> None:
    """The list of runs, and what evaluate asks a summary."""
    from anatosegnet.run import Run

    read_metrics(box.run / "metrics.csv", box)
    assert Run(box.run).summary is not None
    read_split(path, box)


def read_network(path: Path, box: Sandbox) -> None:
    """What predict builds from config and weights."""
    from anatosegnet.prediction.inference import Predictor
    from anatosegnet.run import Run

    image = np.zeros((40, 50, 3), np.uint8)
    Predictor.from_run(Run(box.run), "cpu").probabilities([image])


def read_record(path: Path, box: Sandbox) -> None:
    """What predict kept of earlier work, as it goes on after it."""
    from anatosegnet.prediction.going_on import Record

    record = Record(path.parent, SETTINGS, overwrite=False)
    try:
        record.begin({"a": box.data / "images" / "benign_0.png"}, lambda name, frames: True)
        record.finish(whole=True)
    finally:
        record.close()


SETTINGS = {"version": 1, "networks": ["0" * 16], "tta": [], "write": ["masks", "contours"]}


def record() -> bytes:
    """A record of two files."""
    image = {"file_name": "a.png", "width": 50, "height": 40}
    annotations = [{"category_id": 1, "segmentation": [[1.5, 2.5] * 3], "area": 9}]
    line = {"file": "a.png", "stamp": [1, 2], "frames": 1, "failed": False,
            "rows": [["a.png", None, 1, 1, 3.5]],
            "contours": [{"image": image, "annotations": annotations}]}  # fmt: skip
    lines = [{"settings": SETTINGS}, {"name": "a", **line}, {"name": "b", **line}]
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def change_line(data: bytes, generator: random.Random) -> bytes:
    """A value in a line of JSON is another."""
    lines = data.splitlines(keepends=True)
    row = generator.randrange(len(lines))
    lines[row] = change_json(lines[row], generator) + b"\n"
    return b"".join(lines)


def sheet() -> bytes:
    """A small spreadsheet as BrEaST's."""
    from pandas import DataFrame

    rows = [
        {"CaseID": n, "Image_filename": f"case{n:03d}.png", "Pixel_size": 0.01,
         "Mask_tumor_filename": f"case{n:03d}_tumor.png", "Mask_other_filename": None,
         "Classification": "benign"} for n in range(6)
    ]  # fmt: skip
    buffer = io.BytesIO()
    DataFrame(rows).to_excel(buffer, index=False)
    return buffer.getvalue()


@dataclass(frozen=True)
class Kind:
    """Files that are damaged and read in the same way.

    Attributes:
        path: Of the file, in a sandbox.
        mutations: How it may be damaged.
        read: How it is read.
        count: How many damaged ones are tried.
        content: What is damaged; None: what the sandbox has there.
    """

    path: str
    mutations: tuple[Mutate, ...]
    read: Reader
    count: int
    content: bytes | None = None


def kinds() -> dict[str, Kind]:
    """All kinds of files, by name."""
    found = {}
    for name, content in pictures().items():
        found[f"image {name}"] = Kind(f"tmp/{name}", BYTES, read_picture, 300, content)
    for name, content in pictures(masks=True).items():
        found[f"mask {name}"] = Kind(f"tmp/{name}", BYTES, read_as_mask, 120, content)
    for name, content in scans().items():
        mutations = (*BYTES, edit_header, *[change_element] * 6)
        found[f"DICOM {name}"] = Kind(f"tmp/{name}", mutations, read_dicom, 300, content)
    bookkeeping = ("run/summary.json", (*BYTES[:3], *[change_json] * 9))
    config = ("run/config.yaml", (*BYTES[:3], cut, *[change_yaml] * 12))
    evaluation = "run/evaluation/folder"
    pairs = b"id_a,id_b,similarity\nbenign_0,benign_2,0.9\nmalignant_1,malignant_3,\n"
    book = f"data/BrEaST-Lesions-USG-clinical-data-{0}.xlsx"
    return found | {
        "record of predict": Kind("work/out/.prediction.jsonl",
                                  (*BYTES, *[change_line] * 12), read_record, 500, record()),
        "cases.csv": Kind("data/cases.csv", TABLE, read_folder, 500),
        "duplicates.csv of data": Kind("data/duplicates.csv", TABLE, read_folder, 300, pairs),
        "duplicates.csv of a run": Kind("run/duplicates.csv", TABLE, read_split, 300, pairs),
        "spreadsheet": Kind(book, BYTES, read_sheet, 300, sheet()),
        "split.csv": Kind("run/split.csv", TABLE, read_split, 600),
        "metrics.csv": Kind("run/metrics.csv", TABLE, read_metrics, 500),
        "scores.csv": Kind(f"{evaluation}/scores.csv", TABLE, read_scores, 500),
        "tables.csv": Kind(f"{evaluation}/tables.csv", TABLE, read_scores, 300),
        "summary.json of scores": Kind(
            f"{evaluation}/summary.json", bookkeeping[1], read_scores, 300),
        "summary.json": Kind(*bookkeeping, read_summary, 500),
        "config.yaml": Kind(*config, read_network, 700),
        "model.onnx": Kind("tmp/net.onnx",
                           (*BYTES, *[change_network] * 8, *[in_metadata(change_json)] * 4),
                           read_onnx, 700, onnx_file()),
        "model.safetensors": Kind("tmp/model.safetensors",
                                  (*BYTES, *[in_header(change_json)] * 8),
                                  read_package, 700, packed_weights()),
        "best.ckpt": Kind("run/checkpoints/best.ckpt", BYTES, read_network, 700),
    }  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Damaged files of one kind that one process reads one after the other.

    Attributes:
        name: Of the kind, and the seeds.
        kind: How they are damaged and read.
        seeds: One for each file.
    """

    name: str
    kind: Kind
    seeds: tuple[int, ...]

    @property
    def count(self) -> int:
        """Files."""
        return len(self.seeds)

    def run(self, ground: Path, seconds: float) -> Iterator[Result]:
        """Read them all; where one ends the process, another goes on after it.

        Args:
            ground: From `make_ground`.
            seconds: Wall time of one file, after which it counts as a hang.
        """
        box = Sandbox(ground)
        (box.data / "BrEaST-Lesions_USG-images_and_masks").mkdir()
        try:
            path = box.folder / self.kind.path
            path.parent.mkdir(parents=True, exist_ok=True)
            content = self.kind.content
            whole = path.read_bytes() if content is None else content
            left = list(self.seeds)
            while left:
                for result in self._read(box, path, whole, left, seconds):
                    yield result
                    del left[0]
        finally:
            box.remove()

    def _read(
        self, box: Sandbox, path: Path, whole: bytes, seeds: list[int], seconds: float
    ) -> Iterator[Result]:
        """Results until all are read, or the process had to end."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            self._in_child(box, path, whole, tuple(seeds), writing)
        os.close(writing)
        ended = ""
        with os.fdopen(reading, "rb") as lines:
            for seed in tuple(seeds):
                ready, _, _ = select.select([lines], [], [], seconds)
                line = lines.readline() if ready else b""
                if not line:
                    ended = "traceback" if ready else "hang"
                    break
                words, text, spent = json.loads(line)
                if text.startswith("undamaged: "):
                    sys.exit(f"nothing was attacked, but {self.name} failed: {text}")
                yield Result(f"{self.name} {seed}", ("tried", *words), text, spent)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if ended:
            text = f"the process ended with {os.waitstatus_to_exitcode(status)}"
            yield Result(f"{self.name} {seed}", ("tried", ended), text, seconds)

    def _in_child(
        self, box: Sandbox, path: Path, whole: bytes, seeds: Sequence[int], pipe: int
    ) -> None:
        """Read in this new process, a line for each file; a line is written at once."""

        def answer(words: list[str], text: str, spent: float) -> None:
            os.write(pipe, (json.dumps((words, text, spent)) + "\n").encode())

        try:
            os.chdir(box.work)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            limit_memory(MEMORY)
            path.write_bytes(whole)
            reference = self.kind.read(path, box)
            for seed in seeds:
                answer(*judge(self.kind, path, box, whole, reference, seed))
        except BaseException as error:  # the attack itself is wrong
            answer(["traceback"], f"undamaged: {error!r}"[:300], 0.0)
        finally:
            os._exit(1)


def judge(
    kind: Kind, path: Path, box: Sandbox, whole: bytes, reference: Any, seed: int
) -> tuple[list[str], str, float]:
    """Damage a file, read it, and say what came of it: words, a line, seconds."""
    from anatosegnet.config.composition import one_line
    from anatosegnet.data.case import CaseError
    from anatosegnet.errors import UserError

    generator = random.Random(seed)
    mutate = generator.choice(kind.mutations)
    damaged = mutate(whole, generator)
    path.write_bytes(damaged)
    started = time.process_time()
    words, text = ["accepted"], ""
    try:
        found = kind.read(path, box)
        if isinstance(found, np.ndarray) and not np.array_equal(found, reference):
            words.append("half" if mutate in (cut, cut_and_closed) else "unseen")
    except (UserError, CaseError, OmegaConfBaseException) as error:
        known = isinstance(error, UserError | CaseError)
        words, text = ["refused"], str(error) if known else one_line(error)  # as the verb does
        if "Traceback" in text or len(text) > 20_000 or not is_one(text.splitlines()):
            words = ["traceback"]
    except BaseException as error:
        where, trace = "", error.__traceback__
        while trace is not None:
            where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        words, text = ["traceback"], f"{type(error).__name__}: {error} at {where}"
    spent = time.process_time() - started
    if spent > SECONDS:
        words.append("hang")
    return words, f"{mutate.__name__}: {' '.join(text.split())[:300]}", spent


def damage(path: str, seed: int, mutations: tuple[Mutate, ...]) -> Callable[[Sandbox], None]:
    """Damage a file of a sandbox."""

    def prepare(box: Sandbox) -> None:
        generator = random.Random(seed)
        place = box.folder / path
        place.write_bytes(generator.choice(mutations)(place.read_bytes(), generator))

    return prepare


PREDICT_SCAN = ["predict", "run=../run", "input=../data/scan.dcm", "output=out",
                "write=[masks,overlays,contours,dicom_seg]"]  # fmt: skip


def damaged_scan(content: bytes, seed: int) -> Callable[[Sandbox], None]:
    """Put a damaged DICOM file into a sandbox."""

    def prepare(box: Sandbox) -> None:
        generator = random.Random(seed)
        mutate = generator.choice((*BYTES, *[change_element] * 6))
        (box.data / "scan.dcm").write_bytes(mutate(content, generator))

    return prepare


DAMAGED_RUNS: dict[str, tuple[str, tuple[Mutate, ...], tuple[str, ...], int]] = {
    "last.ckpt": ("run/checkpoints/last.ckpt", BYTES, ("resume",), 40),
    "best.ckpt": ("run/checkpoints/best.ckpt", BYTES, ("init_from", "evaluate"), 10),
    "config.yaml": ("run/config.yaml", (change_yaml,), ("resume", "from_run", "evaluate"), 40),
    "summary.json": ("run/summary.json", (change_json,),
                     ("resume", "from_run seed=", "evaluate", "compare", "runs"), 12),
    "split.csv": ("run/split.csv", TABLE, ("resume", "evaluate", "from_run", "init_from"), 10),
    "metrics.csv": ("run/metrics.csv", TABLE, ("resume", "runs"), 10),
    "scores.csv": ("run/evaluation/folder/scores.csv", TABLE, ("compare",), 10),
}  # fmt: skip


def trials(ground: Path, seed: int) -> list[Any]:
    """Batches of damaged files, and verbs on damaged runs; in random order."""
    generator = random.Random(seed)
    found: list[Any] = []
    for name, kind in kinds().items():
        seeds = [generator.randrange(2**32) for _ in range(kind.count)]
        found += [
            Batch(name, kind, tuple(seeds[at : at + BATCH])) for at in range(0, len(seeds), BATCH)
        ]
    for name, (path, mutations, opened, count) in DAMAGED_RUNS.items():
        for verb in opened:
            for _ in range(count):
                number = generator.randrange(2**32)
                found.append(Trial(f"{name} {number}: {verb}", verbs(ground)[verb],
                                   damage(path, number, mutations)))  # fmt: skip
    for name, content in scans().items():
        for _ in range(8):
            number = generator.randrange(2**32)
            found.append(Trial(f"predict {name} {number}", PREDICT_SCAN,
                               damaged_scan(content, number)))  # fmt: skip
    generator.shuffle(found)
    return found
