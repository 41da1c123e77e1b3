"""``python -m anatosegnet.runs [DIR]``: the runs of a folder, how far and how good they are."""

import sys

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.places import user_path
from anatosegnet.console import output_was_lost
from anatosegnet.run_list import list_runs


@verb("runs")
def main(config: DictConfig) -> None:
    """List the runs of a directory, newest last; exit status 1 if nobody could be told."""
    list_runs(user_path(config.dir))
    if output_was_lost():
        sys.exit(1)


if __name__ == "__main__":
    main()
