"""``python -m anatosegnet.train model=… data=…``: train, then test the best epoch."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from anatosegnet.cli import unexpected, verb
from anatosegnet.config.whereabouts import anchor
from anatosegnet.console import is_first_process
from anatosegnet.run import Run
from anatosegnet.training import sweeper, tracking
from anatosegnet.training.command import open_run

sweeper.register()  # before Hydra looks for one


@verb("train", shows_tracebacks=True)  # of a training that had begun
def main(config: DictConfig) -> None:
    """Compose, build, fit, test, and leave a run directory."""
    with unexpected():
        opened = open_run(config, Path(HydraConfig.get().runtime.output_dir))
    if opened:
        train(*opened)


def train(config: DictConfig, run: Run) -> dict[str, Any]:
    """Fit and test as the config says.

    Args:
        config: The composed config.
        run: Where everything is written.

    Returns:
        What was written to ``summary.json``.

    Raises:
        UserError: The data or a setting is at fault, raised before anything is written; or the
            training failed in a way that one line explains.
    """
    with run.locked() if is_first_process() else nullcontext():
        try:
            anchor(config)
            tracking.identify(config)
            return fit_and_test(config, run)
        finally:
            tracking.finish()


def fit_and_test(config: DictConfig, run: Run) -> dict[str, Any]:
    """What `train` does, in each of the processes that train together."""
    # heavy imports wait until the config is known to be good
    from anatosegnet.data.build import build_data
    from anatosegnet.data.changes import changes_in_training
    from anatosegnet.data.leakage import recorded_split, require_unchanged
    from anatosegnet.data.shared_memory import require_shared_memory
    from anatosegnet.files.split_table import PARTS
    from anatosegnet.training.begin import begin, settle_process
    from anatosegnet.training.build import build_trainer, processes_here, settle_precision
    from anatosegnet.training.interruptions import interruptions
    from anatosegnet.training.origin import find_origin
    from anatosegnet.training.recipes import settle
    from anatosegnet.training.results import finish, test_result
    from anatosegnet.training.resume import Resumption

    started = time.perf_counter()
    with unexpected():
        settle_process(config)
        settle_precision(config)
        goes_on = config.resume is not None
        resumption = Resumption.judge(config, run) if goes_on else None
        settled = settle(config)
        recorded = recorded_split(run, PARTS) if goes_on else None
        if recorded:
            require_unchanged(run, recorded)
        loading = build_data(config, recorded)
        data = loading.prepared
        changes = changes_in_training(config, run, data)
        origin = find_origin(config, run, data, resumption)
        require_shared_memory(data, processes_here(config))
        trainer = build_trainer(config, origin.module, run)
        minutes = run.summary.get("minutes", 0) if goes_on else 0
        if trainer.is_global_zero:
            begin(config, run, data, changes, origin, settled)
    with interruptions(run, config, trainer):
        trainer.fit(origin.module, datamodule=loading, ckpt_path=origin.checkpoint)
        summary, scores = test_result(config, trainer, origin.module, loading, run)
    summary["minutes"] = round(minutes + (time.perf_counter() - started) / 60, 2)
    return finish(config, run, summary, scores) if trainer.is_global_zero else summary


if __name__ == "__main__":
    main()
