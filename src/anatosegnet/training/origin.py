"""What training starts from: fresh weights, a checkpoint of its own, or another run's weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig

from anatosegnet.data.prepared import PreparedData
from anatosegnet.run import Run
from anatosegnet.training.build import build_module
from anatosegnet.training.checkpoints import usable_checkpoint
from anatosegnet.training.resume import Resumption
from anatosegnet.training.transfer import Transfer, load_weights, origin_of


@dataclass(frozen=True)
class Origin:
    """The module that is trained, and what its weights are.

    Attributes:
        module: To be trained.
        resumption: What is other in a run that goes on; None for a new one.
        checkpoint: That it goes on from; None: from the first epoch.
        remarks: What is wrong with newer checkpoints, a line each.
        transfer: What became of the weights of ``init_from``, if any.
    """

    module: LightningModule
    resumption: Resumption | None = None
    checkpoint: Path | None = None
    remarks: Sequence[str] = ()
    transfer: Transfer | None = None


def find_origin(
    config: DictConfig, run: Run, data: PreparedData, resumption: Resumption | None
) -> Origin:
    """Build the module, with the weights that ``init_from`` names or a checkpoint is going to give.

    Raises:
        UserError: No checkpoint can be used, or nothing fits.
    """
    remarks: list[str] = []
    if resumption:
        with isolate_rng():  # without a checkpoint the run begins anew, as it did
            module = build_module(config, pretrained=False)
        checkpoint, remarks = usable_checkpoint(run, module)
        resumption.require_effect(config, module, checkpoint)
        if checkpoint:
            return Origin(module, resumption, checkpoint, remarks)
    source = origin_of(config)
    module = build_module(config, pretrained=False if source else None)
    transfer = load_weights(module, source, data) if source else None
    return Origin(module, resumption, None, remarks, transfer)
