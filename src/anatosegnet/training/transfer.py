"""``init_from=RUN``: training that starts from the weights of another run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from torch import Tensor, nn

from anatosegnet.console import some
from anatosegnet.data.checksum import sha256
from anatosegnet.data.leakage import recorded_split, trained_pixels
from anatosegnet.errors import UserError
from anatosegnet.network import best_weights, infinite, shape
from anatosegnet.run import Run

if TYPE_CHECKING:
    from anatosegnet.data.prepared import PreparedData


@dataclass(frozen=True)
class Transfer:
    """What became of a network's tensors when another run's weights were loaded.

    Attributes:
        run: The other run's directory.
        sha256: Of its ``best.ckpt``.
        epoch: Of that checkpoint, from 1.
        parameters: Parameters of the network.
        loaded: How many of them came from the run.
        other_shape: ``name: shape there -> shape here`` of tensors left as they were.
        missing: Tensors of the network that the run does not have; left as they were.
        unused: Tensors of the run that the network does not have.
        seen: Test cases that the run, or one that it started from, trained on or chose its
            epoch with.
    """

    run: str
    sha256: str
    epoch: int
    parameters: int
    loaded: int
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    seen: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Lines to print."""
        lines = [
            f"init   {self.run}, epoch {self.epoch}: {self.loaded:,} of {self.parameters:,} "
            "parameters"
        ]
        kinds = {
            "another shape": self.other_shape,
            "not in that run": self.missing,
            "not in this network": self.unused,
        }
        for kind, names in kinds.items():
            if names:
                lines.append(f"       {len(names)} tensors {kind}: {some(names)}")
        if self.seen:
            lines.append(
                f"       warning: NOT A TEST SCORE: {len(self.seen)} of the test images were "
                f"trained on there: {some(self.seen)}"
            )
        return "\n".join(lines)

    @property
    def summary(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return {
            "run": self.run,
            "checkpoint_sha256": self.sha256,
            "epoch": self.epoch,
            "parameters_loaded": self.loaded,
            "parameters": self.parameters,
            "other_shape": list(self.other_shape),
            "missing": list(self.missing),
            "unused": list(self.unused),
            "test_cases_seen": list(self.seen),
        }


def origin_of(config: DictConfig) -> Run | None:
    """The run that ``init_from`` names, None without one."""
    directory = config.get("init_from")
    return None if directory is None else Run.open(directory, usage="init_from=DIR")


def load_weights(module: nn.Module, run: Run, data: "PreparedData | None" = None) -> Transfer:
    """Take the weights of a run's best epoch, as far as names and shapes agree.

    Args:
        module: The segmentation module; changed in place.
        run: The other run.
        data: This run's data, set up; to find test cases that the other run has seen.

    Raises:
        UserError: The run has no readable ``best.ckpt``, or nothing in it fits.
    """
    checkpoint = best_weights(run)
    theirs: dict[str, Tensor] = checkpoint["state_dict"]
    ours = module.state_dict()
    other_shape = tuple(
        f"{name}: {shape(theirs[name])} -> {shape(tensor)}"
        for name, tensor in ours.items()
        if name in theirs and theirs[name].shape != tensor.shape
    )
    fitting = {
        name: theirs[name]
        for name, tensor in ours.items()
        if name in theirs and theirs[name].shape == tensor.shape
    }
    if bad := infinite(fitting, ours):
        raise UserError(f"init_from: weights of {run.best_path} are NaN or infinite: {some(bad)}")
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    loaded = sum(size for name, size in sizes.items() if name in fitting)
    if not loaded:
        raise UserError(
            f"init_from: no weight of {run.directory} fits this network "
            f"({len(other_shape)} of the same name have another shape); give its model settings"
        )
    module.load_state_dict(fitting, strict=False)
    return Transfer(
        run=str(run.directory.resolve()),
        sha256=sha256(run.best_path),
        epoch=int(checkpoint.get("epoch", -1)) + 1,
        parameters=sum(sizes.values()),
        loaded=loaded,
        other_shape=other_shape,
        missing=tuple(name for name in ours if name not in theirs),
        unused=tuple(name for name in theirs if name not in ours),
        seen=seen_before(run, data) if data is not None else (),
    )


def seen_before(run: Run, data: "PreparedData") -> tuple[str, ...]:
    """Test cases whose very pixels a run, or one that it started from, was trained with."""
    known: set[str] = set()
    origin: str | None = str(run.directory)
    visited: set[str] = set()
    while origin is not None and origin not in visited:
        visited.add(origin)
        run = Run(origin)
        if run.split_path.is_file():
            known |= trained_pixels(run, recorded_split(run))
        origin = run.summary.get("init_from", {}).get("run")
    return tuple(
        name
        for name in data.split.test
        if name in data.digests and data.digests[name].pixels in known
    )
