"""The networks that a command line names, as one predictor."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

from omegaconf import DictConfig

from anatosegnet.config.places import user_path
from anatosegnet.console import plain
from anatosegnet.errors import UserError
from anatosegnet.prediction.predictor import Ensemble, ImagePredictor, Mirrored, Views
from anatosegnet.run import Run

SCALES = (0.8, 1.25)  # of the network's size, beside that itself, by tta=scales
STEP = 32  # px: encoders halve an image five times
VIEWS = ("flip", "scales")


@runtime_checkable
class Resizable(ImagePredictor, Protocol):
    """A predictor whose network can see images of other sizes too."""

    def at_size(self, size: tuple[int, int]) -> ImagePredictor:
        """The same network on images of (height, width)."""
        ...


def open_predictor(config: DictConfig, usage: str = "run=DIR") -> ImagePredictor:
    """What ``run=`` or ``model=``, and ``tta=`` name; each loaded by what its kind needs, no more.

    Args:
        config: run (one or several), trust, tta, device; model.file, where the verb has it.
        usage: How the verb is called, for the message where nothing is named.

    Raises:
        UserError: A run is missing or damaged, there is no such device or view, or a network cannot
            see what a view shows it.
    """
    views = views_of(config.tta)
    if file := file_of(config):
        return seen(of_file(file, config.device), views)
    runs = open_runs(config.run, usage, config.trust)
    return joined([seen(of_run(run, config.device), views) for run in runs])


def open_runs(given: Any, usage: str, trust: Sequence[str] = ()) -> list[Run]:
    """The runs of ``run=DIR`` or ``run=[DIR,…]``.

    Args:
        given: What was given.
        usage: How the verb is called.
        trust: Packages whose objects the runs' configs may build.

    Raises:
        UserError: There is none, or one is named twice.
    """
    named = [str(one) for one in given] if several(given) else [given]
    runs = [Run.open(one, usage, trust) for one in named or [None]]
    places = [run.directory.resolve() for run in runs]
    if twice := [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"run: {twice[0].directory} is named twice, and would count twice")
    return runs


def several(given: object) -> TypeGuard[Sequence[Any]]:
    """Whether a list was given, not one name."""
    return isinstance(given, Sequence) and not isinstance(given, str)


def file_of(config: DictConfig) -> Path | None:
    """The file of ``model=FILE.onnx``; None without.

    Raises:
        UserError: A run is named too.
    """
    given = (config.get("model") or {}).get("file")
    if given is not None and config.run is not None:
        raise UserError("give run=DIR or model=FILE.onnx, not both")
    return None if given is None else user_path(given)


def of_file(path: Path, device: str) -> ImagePredictor:
    """The network of an ONNX file, which needs no PyTorch; raises UserError as `OnnxPredictor`."""
    from anatosegnet.prediction.onnx import OnnxPredictor

    if device not in ("auto", "cpu"):
        raise UserError(f"device={plain(device)}: model=FILE.onnx runs on the CPU; run=DIR may not")
    return OnnxPredictor(path)


def of_run(run: Run, device: str) -> ImagePredictor:
    """The network of a run's best epoch, in PyTorch."""
    from anatosegnet.prediction.inference import Predictor

    return Predictor.from_run(run, device)


def joined(members: Sequence[ImagePredictor]) -> ImagePredictor:
    """An ensemble; of a single member that itself."""
    return Ensemble(members) if len(members) > 1 else members[0]


def views_of(given: object) -> tuple[str, ...]:
    """The kinds of views that ``tta`` names, in one order; raises UserError for others."""
    words = [*given] if several(given) else ["none" if given is None else given]
    if odd := [word for word in words if word not in ("none", *VIEWS)]:
        raise UserError(
            f"tta={plain(odd[0])} must be one of none, {', '.join(VIEWS)}, [{','.join(VIEWS)}]"
        )
    return tuple(view for view in VIEWS if view in words)


def seen(predictor: ImagePredictor, views: Sequence[str]) -> ImagePredictor:
    """A network on several views of each image, averaged.

    Args:
        predictor: The network.
        views: ``flip``: the image and its mirror image, left for right; an ultrasound image has
            the skin above, so that none stands on its head. ``scales``: the image
            smaller and larger too, see `SCALES`.
    """
    sizes = scaled(predictor.image_size) if "scales" in views else [predictor.image_size]
    turns = (False, True) if "flip" in views else (False,)
    each = [
        Mirrored(shown) if turned else shown
        for shown, turned in product([at_size(predictor, size) for size in sizes], turns)
    ]
    return Views(each) if len(each) > 1 else each[0]


def scaled(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of ``tta=scales``: a network's own, and others that encoders can halve."""
    sizes = [size]
    for scale in SCALES:
        height, width = (scaled_edge(edge, scale) for edge in size)
        sizes.append((height, width))
    return list(dict.fromkeys(sizes))


def scaled_edge(edge: int, scale: float) -> int:
    """A multiple of `STEP` near an edge times a scale, and another than the edge itself."""
    near = round(edge * scale / STEP) * STEP
    if near == edge:
        near += STEP if scale > 1 else -STEP
    return max(STEP, near)


def at_size(predictor: ImagePredictor, size: tuple[int, int]) -> ImagePredictor:
    """A network on images of another size; raises UserError where it sees one size alone."""
    if size == predictor.image_size:
        return predictor
    if not isinstance(predictor, Resizable):
        raise UserError("tta=scales: this network sees images of one size only; leave scales out")
    return predictor.at_size(size)
