"""``python -m anatosegnet.prepare data=…``: download, check, index, and export a dataset."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.composition import choices_of
from anatosegnet.errors import UserError


@verb("prepare")
def main(config: DictConfig) -> None:
    """Prepare a dataset; exit status 1 if something must be put right."""
    if not prepare(config):
        sys.exit(1)


def prepare(config: DictConfig) -> bool:
    """Fetch what is missing, read every file, and write the index.

    Args:
        config: The composed config of the verb.

    Returns:
        Whether nothing must be put right.

    Raises:
        UserError: The dataset cannot be had, or something cannot be written.
    """
    if config.get("data") is None:
        raise UserError(f"say which dataset: data={'|'.join(choices_of('data'))}")
    from anatosegnet.data.build import build_settings, build_source
    from anatosegnet.data.preparation.audit import audit
    from anatosegnet.data.preparation.export import export, require_new_folder
    from anatosegnet.data.preparation.fetch import fetch, require_writable
    from anatosegnet.data.preparation.index import print_audit, write_index
    from anatosegnet.data.prepared import look_for_data

    include_normal = bool(config.data.get("include_normal"))
    config = config.copy()
    config.data.seed = 0  # without effect here, and this program has no ${seed}
    settings, source = build_settings(config), build_source(config)
    if source.published and "include_normal" in config.data:  # what was published is checked whole
        config.data.include_normal = True
        source = build_source(config)
    if source.simulated:
        raise UserError(f"data={settings.name} has no files to prepare; give another dataset")
    root = Path(config.data.get("root") or config.paths.data_dir)
    out = Path(config.out or Path(config.paths.data_dir) / "index" / settings.name)
    if not isinstance(config.sheet, int) or config.sheet < 0:
        raise UserError(f"sheet={config.sheet} must be a number of cases")
    require_writable(out, "out")
    if config.export is not None:
        require_new_folder(Path(config.export))
        require_writable(Path(config.export), "export")
    fetch(source, settings.name, root, config.download)
    data, problems = look_for_data(source, settings.name, settings.exclude)
    found = audit(data, problems, str(root), config.sheet)
    write_index(found, out)
    print_audit(found, out)
    if config.export is not None:
        export(found, data, Path(config.export), config.size, include_normal)
    return not found.problems


if __name__ == "__main__":
    main()
