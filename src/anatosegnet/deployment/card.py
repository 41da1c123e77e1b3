"""The card of a model: what it was trained on, its scores with their conditions, its limits.

All of it is read from the run's own files; every foreign text is shown as it is.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from anatosegnet.console import between, rounded
from anatosegnet.data.build import build_source
from anatosegnet.errors import UserError
from anatosegnet.evaluation.published import evaluations
from anatosegnet.metrics.scores import shown_in, title
from anatosegnet.report.markdown import inline, table_lines
from anatosegnet.report.reading import read_summary
from anatosegnet.run import Run

NOT_GIVEN = "not given by the author: ask before you use the weights"
LIMITS = (
    "Not a medical device: for research alone. Scores hold for images like those under their "
    "conditions; on those of other scanners, hospitals and patients they are mostly lower."
)


def card(packed: Run, run: Run, name: str, licence: str | None) -> str:
    """The text of ``README.md``, with the front matter that model hubs read.

    Args:
        packed: The package, whose summaries name no folders of a machine.
        run: The run it was made of.
        name: Of the package.
        licence: Of the weights, as hubs name it (``cc-by-4.0``); None where the author gives none.
    """
    summary = packed.summary
    scored = {path.name: read_summary(path / "summary.json") for path in evaluations(packed)}
    head = yaml.safe_dump(
        front_matter(packed, name, licence, scored), sort_keys=False, allow_unicode=True
    )
    lines = [
        f"---\n{head}---",
        f"# {inline(name)}",
        f"Lesions in breast ultrasound, as a network of AnatoSegNet saw them in "
        f"{inline(run.config.data.name)}.",
        "## Use",
        *usage(),
        "## Scores",
        *scores(summary, scored),
        "## Training",
        *training(packed),
        "## Licence",
        f"Weights: {inline(licence or NOT_GIVEN)}.",
        *licences_of_data(run),
        "## Limits",
        LIMITS,
    ]
    return "\n\n".join(lines) + "\n"


def front_matter(
    packed: Run, name: str, licence: str | None, scored: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What hubs list a model by: https://huggingface.co/docs/hub/model-cards."""
    results = [
        {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": dataset, "type": dataset, "split": of_conditions(summary, "split")},
            "metrics": [
                {"type": score, "name": title(score), "value": round(summary[score], 4)}
                for score in shown_in(["first"], summary)
                if isinstance(summary.get(score), float)
            ],
        }
        for dataset, summary in scored.items()
    ]
    matter: dict[str, Any] = {
        "library_name": "anatosegnet",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical", "ultrasound", "breast", "segmentation"],
        "datasets": [str(packed.config.data.name)],
    }
    if licence:
        matter = {"license": licence, **matter}
    if results:
        matter["model-index"] = [{"name": name, "results": results}]
    return matter


def usage() -> list[str]:
    """How the package is used."""
    return [
        "`FOLDER` is this folder, or `hf://OWNER/NAME`:",
        "    python -m anatosegnet.predict run=FOLDER input=… output=DIR\n"
        "    python -m anatosegnet.evaluate run=FOLDER data=NAME\n"
        "    python -m anatosegnet.train init_from=FOLDER …",
    ]


def scores(summary: dict[str, Any], scored: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The scores of each evaluation under its conditions; else those at the end of training."""
    for dataset, evaluation in scored.items():
        yield f"### {inline(dataset)}, {evaluation.get('images')} images"
        ends = evaluation.get("intervals", {})
        rows = [
            (
                title(name),
                rounded(evaluation[name]),
                between(ends.get(name)) if name in ends else "",
            )
            for name in shown_in(["first"], evaluation)
            if isinstance(evaluation.get(name), float)
        ]
        yield "\n".join(table_lines(["score", "mean", "95 % interval"], rows))
        yield from conditions(evaluation.get("conditions", {}))
        if clean := evaluation.get("without_leaks"):
            yield f"Without images that leak: IoU {rounded(clean.get('iou'))}."
    if not scored and "test/iou" in summary:
        means = [(title(key), rounded(summary[f"test/{key}"])) for key in ("iou", "dice")]
        yield "\n".join(table_lines(["score", "mean"], means))
        yield from conditions(summary.get("test_conditions", {}))
    if not scored and "test/iou" not in summary:
        yield "None: the run was never tested."


def conditions(said: Any) -> Iterator[str]:
    """A line for each condition of scores."""
    if isinstance(said, dict) and said:
        yield "\n".join(f"- {inline(name)}: {inline(text)}" for name, text in said.items())


def of_conditions(summary: dict[str, Any], key: str) -> str:
    """One of the conditions of an evaluation."""
    return str(summary.get("conditions", {}).get(key, "unknown"))


def training(packed: Run) -> Iterator[str]:
    """What the weights come from."""
    summary, config = packed.summary, packed.config
    versions = summary.get("versions") or {}
    told = {
        "data": config.data.name,
        "split": f"{summary.get('split_description')}; fingerprint "
        f"{summary.get('split_fingerprint')}",
        "leakage": summary.get("leakage"),
        "network": config.model.get("_target_"),
        "image size": config.data.image_size,
        "epoch": f"{summary.get('best_epoch')} of {summary.get('epochs')}",
        "initial weights": (summary.get("init_from") or {}).get("run"),
        "command": summary.get("command"),
        "commit": summary.get("git_commit"),
        "versions": ", ".join(f"{package} {number}" for package, number in versions.items()),
    }
    yield "\n".join(f"- {name}: {inline(text)}" for name, text in told.items() if text)
    yield (
        "`config.yaml` has every setting, `split.csv.gz` which case was in which part, and "
        "`evaluation/` the scores of each image, of which the means above are made."
    )


def licences_of_data(run: Run) -> list[str]:
    """What is known of the licences of the training data."""
    try:
        downloads = build_source(run.config).downloads
    except UserError:  # of a package that is not trusted, or not installed
        downloads = ()
    known = dict.fromkeys(one.licence for one in downloads if one.licence)
    return [f"Training data: {inline(text)}." for text in known]
