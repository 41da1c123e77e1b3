"""A run that repeats another one: whether it came to the same numbers."""

from omegaconf import DictConfig

from anatosegnet.config.keys import DECIDES, settings_of
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.run import PACKAGES, Run


def source_of(config: DictConfig) -> Run | None:
    """The run that this one repeats, if it is still there."""
    source = Run(config.from_run) if config.get("from_run") else None
    return source if source is not None and source.exists else None


def agreement(config: DictConfig, run: Run, source: Run) -> str | None:
    """Whether a repetition came to the same epochs; None where something else was asked for."""
    if settings_of(config, *DECIDES) != settings_of(source.config, *DECIDES):
        return None
    ours, before = (read_epochs(each.metrics_path) for each in (run, source))
    for epoch, (now, then) in enumerate(zip(ours.values(), before.values(), strict=False), start=1):
        if now != then:
            name = next(name for name in {**now, **then} if now.get(name) != then.get(name))
            return (
                f"differs from {source.directory} from epoch {epoch} on ({name} {now.get(name)} "
                f"instead of {then.get(name)}){other_versions(run, source)}"
            )
    if len(ours) != len(before):
        return f"{len(ours)} epochs instead of {len(before)} of {source.directory}, those equal"
    return f"every epoch has the numbers of {source.directory}"


def other_versions(run: Run, source: Run) -> str:
    """What else was installed, and another machine or commit, in words."""
    now, then = run.summary, source.summary
    changes = [
        f"{name} {then['versions'].get(name)} → {now['versions'].get(name)}"
        for name in ("python", *PACKAGES)
        if then.get("versions", {}).get(name) != now["versions"].get(name)
    ]
    changes += [f"{key.replace('_', ' ')} {then.get(key)} → {now.get(key)}"
                for key in ("git_commit", "machine") if then.get(key) != now.get(key)]  # fmt: skip
    return f"; changed since: {', '.join(changes)}" if changes else ""
