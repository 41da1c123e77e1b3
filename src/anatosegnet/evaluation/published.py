"""Published runs: what others need to compare a run without its weights and images.

``config.yaml`` and ``summary.json``; ``split.csv``, ``duplicates.csv`` and ``metrics.csv``, packed
by gzip; and of each evaluation ``summary.json`` and ``scores.csv``, packed. Numbers and rows are
those of the run; what tells of the machine and the account that trained it is left out.
"""

import gzip
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from anatosegnet.config.recorded import with_strings
from anatosegnet.console import plain, say, some
from anatosegnet.data.leakage import recorded_split
from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import find_runs, read_evaluation, require_finished
from anatosegnet.evaluation.evaluate import evaluation_directory
from anatosegnet.evaluation.tables import summarise
from anatosegnet.files.opening import kept, read_content, read_json, read_yaml, read_yaml_text
from anatosegnet.files.rows import is_finite
from anatosegnet.files.writing import replacing_directory, write_json
from anatosegnet.report.reading import SCORES, read_summary
from anatosegnet.run import Run

LARGEST = 10**6  # bytes of a published file
OF_THE_MACHINE = ("directory", "host", "pid", "pid_started")  # of a run's summary.json
ABSOLUTE = re.compile(
    r"(?<![\w./\\~:}-])(?:~[\w-]*[/\\]|[A-Za-z]:[/\\]|/|\\\\)[/\\]*(?=[^\s/\\])"
    r"(?:[^\s'\",;\[\]{}()/\\]+[/\\]+)*"
)  # the folders of an absolute path
ROUNDING = 2e-6  # scores.csv has six digits behind the point


def publish(
    given: str | Sequence[str] | ListConfig | None, out: str | None, trust: Sequence[str] = ()
) -> list[Path]:
    """Write a folder for each run that has all that is needed to compare it.

    Args:
        given: Directories of runs, or one folder of runs.
        out: Folder that gets them, each under the name of its run, or its place in the folder it
            was found in.
        trust: Packages whose objects the runs' configs may build.

    Returns:
        The folders.

    Raises:
        UserError: A run is not finished, was not evaluated on its own test cases, is damaged, or
            would take the place of something.
    """
    if out is None:
        raise UserError("say where they go: out=DIR, which gets a folder of each run's name")
    runs = find_runs(given, trust)
    names = [place_of(run, given) for run in runs]
    if repeated := {str(name) for name in names if names.count(name) > 1}:
        raise UserError(
            f"several runs have the name {some(sorted(repeated))}; rename their folders"
        )
    targets = [Path(out) / name for name in names]
    for run, target in zip(runs, targets, strict=True):
        require_finished(run)
        if target.exists():
            raise UserError(f"{target} exists; published results are not overwritten")
        if found := list(faults(run)):
            raise UserError(f"{run.directory} cannot be published: {'; '.join(found)}")
    for run, target in zip(runs, targets, strict=True):
        with replacing_directory(target) as temporary:
            write_published(run, temporary, target.relative_to(out).as_posix())
        say(f"written {target}")
    return targets


def place_of(run: Run, given: str | Sequence[str] | ListConfig | None) -> Path:
    """Where a run goes below the folder of all: by its name, and the folders it was found in."""
    for folder in [given] if isinstance(given, str) else (given or ()):
        place = Path(str(folder)).absolute()
        if place in run.directory.absolute().parents:
            return run.directory.absolute().relative_to(place)
    return Path(run.directory.resolve().name)


def write_published(run: Run, directory: Path, name: str) -> None:
    """Write a run's published files; see the top of this file.

    Args:
        run: Finished and evaluated.
        directory: An empty folder.
        name: Of the run, in the place of its directory.
    """
    config: Any = OmegaConf.to_container(OmegaConf.create(read_yaml_text(run.config_path)))
    summary = run.summary
    before = {str(config["paths"]["data_dir"]): "data", str(Path.home()): "~"}
    before |= dict.fromkeys([str(run.directory.resolve()), summary.get("directory", "")], name)

    def portable(key: str, text: str) -> str:
        for folder in sorted(before, key=len, reverse=True):
            if len(Path(folder).parts) > 1 and Path(folder).is_absolute():
                text = text.replace(folder, before[folder])
        return without_folders(key, text)

    config = with_strings({**config, "logger": {}}, portable)  # loggers name accounts
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    about = {key: value for key, value in summary.items() if key not in OF_THE_MACHINE}
    write_json(directory / "summary.json", with_strings(about, portable))
    for path in (run.split_path, run.duplicates_path, run.metrics_path):
        if path.is_file():
            pack(path, directory)
    for source in evaluations(run):
        target = directory / "evaluation" / source.name
        target.mkdir(parents=True)
        pack(kept(source / SCORES), target)
        write_json(
            target / "summary.json", with_strings(read_summary(source / "summary.json"), portable)
        )


def without_folders(_: str, text: str) -> str:
    """A text with the last part alone of each absolute path."""
    return ABSOLUTE.sub("", text)


def pack(path: Path, directory: Path) -> None:
    """Write the gzip of a table into a folder; the same bytes at any time, on any system."""
    target = directory / f"{path.name.removesuffix('.gz')}.gz"
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed,
    ):
        packed.write(read_content(path))


def evaluations(run: Run) -> list[Path]:
    """The evaluation directories of a run, by name."""
    return sorted(path.parent for path in run.directory.glob("evaluation/[!.]*/summary.json"))


def faults(run: Run, must_be_scored: bool = True) -> Iterator[str]:
    """What speaks against the scores of a finished run, a line each.

    The fingerprint of its split and the means of its scores are computed again, and its test cases
    looked for among those that were scored.

    Args:
        run: The run.
        must_be_scored: Whether it is a fault that its test cases were never scored.
    """
    try:
        split, summary = recorded_split(run).read(), run.summary
        if summary.get("split_fingerprint") != split.fingerprint:
            yield (
                f"the fingerprint of its split is {split.fingerprint}, and "
                f"{plain(str(summary.get('split_fingerprint')))} in its summary"
            )
        own = [evaluation_directory(run, run.config.data.name, at) for at in ("original", "model")]
        scored = evaluations(run)
        if must_be_scored and not set(own) & set(scored):
            yield f"its test cases were not scored; evaluate run={run.directory}"
        for directory in scored:
            wrong = faults_of_scores(run, directory, split.test if directory in own else None)
            yield from (f"{directory.name}: {fault}" for fault in wrong)
    except (OSError, UserError, ValueError) as error:
        yield str(error)


def faults_of_scores(run: Run, directory: Path, cases: Sequence[str] | None) -> Iterator[str]:
    """What speaks against one evaluation of a run.

    Args:
        run: The run.
        directory: Of the evaluation.
        cases: That must have been scored; None where those are not known.

    Raises:
        UserError: Its files cannot be read, were changed, or are of another epoch.
    """
    said = read_summary(directory / "summary.json")
    frame = read_evaluation(run, directory, said)
    scored = frame["id"].tolist()
    if len(set(scored)) < len(scored):
        yield "cases are scored twice"
    if cases is not None and set(cases) != set(scored):
        missing, added = set(cases) - set(scored), set(scored) - set(cases)
        yield f"{len(missing)} test cases have no score, and {len(added)} others have one"
    told = numbers(said)
    wrong = [
        name
        for name, value in numbers(summarise(frame)).items()
        if not math.isclose(value, told.get(name, math.nan), rel_tol=1e-6, abs_tol=ROUNDING)
    ]
    if wrong:
        yield f"the scores do not give what summary.json says of {some(wrong)}"


def numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """The counts, means and deviations of a summary, by name."""
    entries = {**summary, **summary.get("detection", {}), **(summary.get("risk") or {})}
    return {name: value for name, value in entries.items() if is_finite(value)}


def faults_of_files(directory: Path) -> Iterator[str]:
    """What should not have been published with a run, a line each."""
    evaluation = r"evaluation/[^/]+/(summary\.json|scores\.csv\.gz)"
    wanted = rf"config\.yaml|summary\.json|(split|duplicates|metrics)\.csv\.gz|{evaluation}"
    for path in sorted(path for path in directory.rglob("*") if not path.is_dir()):
        name = path.relative_to(directory).as_posix()
        if not re.fullmatch(wanted, name):
            yield f"{name} is not needed to compare runs"
        elif path.is_symlink() or path.stat().st_size > LARGEST:
            yield f"{name} is a link, or has more than {LARGEST / 1e6:.0f} MB"
        elif path.suffix in (".json", ".yaml"):
            content = (read_json if path.suffix == ".json" else read_yaml)(path)
            if with_strings(content, without_folders) != content:
                yield f"{name} names folders of a machine; publish the run again"
            if known := [key for key in OF_THE_MACHINE if key in content]:
                yield f"{name} tells of a machine: {some(known)}; publish the run again"
