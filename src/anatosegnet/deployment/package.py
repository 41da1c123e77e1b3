"""A model package: a finished run as one folder for others, with a card that tells of it.

``model.safetensors``, ``config.yaml``, ``README.md`` (the card), and what a published run has:
``summary.json``, the split and other tables, and the scores of each evaluation.
"""

from pathlib import Path

import torch

from anatosegnet.config.places import path_part
from anatosegnet.console import some
from anatosegnet.data.checksum import sha256
from anatosegnet.deployment.card import card
from anatosegnet.deployment.original import Original
from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import require_finished
from anatosegnet.evaluation.published import evaluations, faults, write_published
from anatosegnet.files.opening import read_json
from anatosegnet.files.weights import NAME, read_weights, write_weights
from anatosegnet.files.writing import write_json
from anatosegnet.network import trained_network
from anatosegnet.run import Run

CARD = "README.md"


def write_package(run: Run, directory: Path, name: str, licence: str | None) -> None:
    """Write the package of a run, and open it again.

    Args:
        run: Finished; its evaluations, if there are any, tell the card its scores.
        directory: An empty folder.
        name: Of the package.
        licence: Of the weights; None where the author gives none.

    Raises:
        UserError: The run is not finished, something in it is damaged, or the package does not give
            the run's own weights back.
    """
    require_finished(run)
    if found := list(faults(run, must_be_scored=False)):
        raise UserError(f"{run.directory} cannot be packed: {'; '.join(found)}")
    original = Original(run)
    write_published(run, directory, path_part(name, "out"))
    write_only_weights(original, directory)
    packed = Run(directory, run.trust)
    for evaluation in evaluations(packed):  # they score these weights, now in another file
        path = evaluation / "summary.json"
        write_json(path, {**read_json(path), "checkpoint_sha256": sha256(packed.best_path)})
    text = card(packed, run, name, licence)
    (directory / CARD).write_text(text, encoding="utf-8")
    trained_network(packed)  # it opens


def write_only_weights(original: Original, directory: Path) -> None:
    """Write ``model.safetensors`` into a folder.

    Raises:
        UserError: It does not give the weights of the original back, bit by bit.
    """
    path, weights = directory / NAME, original.network.network.state_dict()
    write_weights(path, weights, original.described)
    theirs, _ = read_weights(path)
    if other := [name for name in weights if not torch.equal(theirs[name], weights[name])]:
        raise UserError(f"{path.name} has another {some(other)} than the run; nothing was written")
