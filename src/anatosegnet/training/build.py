"""The objects of a run from its config: network and trainer."""

import os

import lightning
import torch
from lightning import LightningModule
from omegaconf import DictConfig, ListConfig, OmegaConf

from anatosegnet.config.monitors import settle_monitors
from anatosegnet.config.objects import instantiate, instantiate_with
from anatosegnet.errors import UserError
from anatosegnet.network import build_network
from anatosegnet.run import Run
from anatosegnet.training import tracking
from anatosegnet.training.callbacks import GoOn
from anatosegnet.training.checkpoints import SafeCheckpointIO
from anatosegnet.training.contract import require_contract
from anatosegnet.training.ema import EMA
from anatosegnet.training.module import network_of
from anatosegnet.training.optimizers import build_optimizer

# Lightning's names of the precisions that there are; what it has beside them wants other batches
PRECISIONS = {
    "32-true": "32-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
    "None": "32-true",
}


def build_module(config: DictConfig, pretrained: bool | None = None) -> LightningModule:
    """The network with its loss and optimiser.

    Args:
        config: The composed config.
        pretrained: As for `build_network`.

    Raises:
        UserError: It is no LightningModule around the network, or cannot configure its optimiser.
    """
    network = build_network(config, pretrained)
    module = instantiate_with(
        config,
        "module",
        model=network,
        loss=instantiate(config, "loss"),
        optimizer=build_optimizer(config, network),
        scheduler=instantiate(config, "scheduler") if config.scheduler else None,
        seed=config.seed,
        channels_last=config.get("channels_last", True),
    )
    if not isinstance(module, LightningModule):
        target = config.module.get("_target_")
        raise UserError(f"module: {target} gives no lightning.LightningModule")
    network_of(module)
    try:
        module.configure_optimizers()  # now, not after the run has begun to write
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer or scheduler: {error}") from error
    return module


def build_trainer(config: DictConfig, module: LightningModule, run: Run) -> lightning.Trainer:
    """The trainer with its callbacks and loggers.

    Raises:
        UserError: A setting it cannot train with.
    """
    settle_precision(config)
    settle_monitors(config)
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if config.trainer.get(key) == 0:
            raise UserError(f"trainer.{key}=0 trains nothing")
    if config.trainer.get("limit_test_batches") == 0 and config.test:
        raise UserError("trainer.limit_test_batches=0 tests nothing; take test=false")
    steps = config.trainer.get("accumulate_grad_batches", 1)
    if not (isinstance(steps, int) and steps >= 1):
        raise UserError(f"trainer.accumulate_grad_batches={steps} must be at least 1")
    callbacks = build_callbacks(config)
    averaging = next((callback for callback in callbacks if isinstance(callback, EMA)), None)
    loggers = [instantiate(config, f"logger.{key}") for key in named(config.logger)]
    trainer = instantiate(
        config,
        "trainer",
        callbacks=[*callbacks, GoOn(run.directory, callbacks)],
        logger=loggers or False,
        plugins=[SafeCheckpointIO(run, averaging)],
        deterministic=bool(config.get("deterministic")),
    )
    require_contract(config, module, trainer)
    if config.get("compile"):
        require_compiler(trainer.strategy.root_device)
        network_of(module).compile()
    if trainer.is_global_zero:
        settings = OmegaConf.to_container(config, resolve=True)
        with tracking.one_line_errors():
            for logger in loggers:
                logger.log_hyperparams(settings)
    return trainer


def build_callbacks(config: DictConfig) -> list[lightning.Callback]:
    """The callbacks in the config's order; ``progress`` is handed the history."""
    built: dict[str, lightning.Callback] = {}
    keys = named(config.callbacks)
    for key in sorted(keys, key=lambda key: key == "progress"):  # which comes last
        parts = {"history": built.get("history")} if key == "progress" else {}
        built[key] = instantiate_with(config, f"callbacks.{key}", **parts)
        if not isinstance(built[key], lightning.Callback):
            name = type(built[key]).__name__
            raise UserError(f"callbacks.{key}: {name} is no lightning.Callback")
    return [built[key] for key in keys]


def named(group: DictConfig | None) -> list[str]:
    """The keys of a group of objects that are not switched off by null."""
    return [str(key) for key, value in (group or {}).items() if value is not None]


def require_compiler(device: torch.device) -> None:
    """UserError if torch.compile would look in vain for what it builds with."""
    from torch._inductor import cpp_builder, exc

    try:
        if device.type == "cpu":  # on a GPU Triton brings most of it
            cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            f"compile=true needs a C++ compiler, and there is none (CXX={os.environ.get('CXX')}); "
            "install one, or take compile=false"
        ) from error


def settle_precision(config: DictConfig) -> None:
    """Put the precision of this machine's device in the place of ``trainer.precision=auto``.

    bf16 where the device computes in it, else 16-bit floats on a GPU and 32 on a CPU. Other names
    of a precision become the one that is recorded.

    Raises:
        UserError: It is none that batches of 32-bit floats go with.
    """
    given = config.trainer.get("precision", "32-true")
    if given == "auto":
        on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
        if on_cpu:
            settled = "bf16-mixed" if cpu_has_bf16() else "32-true"
        else:
            settled = "bf16-mixed" if torch.cuda.is_bf16_supported(False) else "16-mixed"
    elif str(given) in PRECISIONS:
        settled = PRECISIONS[str(given)]
    else:
        known = ", ".join(["auto", *dict.fromkeys(PRECISIONS.values())])
        raise UserError(f"trainer.precision={given} must be one of {known}")
    if settled != given:
        config.trainer.precision = settled


def processes_here(config: DictConfig) -> int:
    """How many processes of a training this machine is going to run."""
    devices = config.trainer.get("devices", 1)
    if isinstance(devices, ListConfig):
        return len(devices)
    on_cpu = config.trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
    every = 1 if on_cpu else torch.cuda.device_count()
    return int(devices) if str(devices).isdecimal() and int(devices) > 0 else every


def cpu_has_bf16() -> bool:
    """Whether this CPU has matrix instructions in bf16, and does not emulate them."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
