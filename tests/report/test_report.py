"""The reports as files: what is in them, what is escaped, what is said when data is damaged."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest

from anatosegnet.console import p_value, rounded
from anatosegnet.errors import UserError
from anatosegnet.metrics.scores import title
from anatosegnet.report import write_comparison, write_report
from anatosegnet.report.comparison import choose_pictures, rows_to_show
from anatosegnet.report.html import embed
from anatosegnet.report.reading import Evaluation, learning_curves
from anatosegnet.report.tables import table, tables
from anatosegnet.run import Run
from tests.evaluations import make_evaluation

pytestmark = pytest.mark.slow  # phantoms are simulated first
VOID = {"meta", "link", "input", "line", "circle", "br", "img"}


class Page(HTMLParser):
    """Checks nesting; keeps text, addresses, and what scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self.script = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.script = attributes.get("id") or ""
        self.addresses += [attributes[key] or "" for key in ("src", "href") if key in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self.script] = data
        elif self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of nine cases; read only."""
    return make_evaluation(tmp_path_factory.mktemp("report") / "run", 9, different=3)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """An evaluation of three cases that a test may damage."""
    return make_evaluation(tmp_path / "run", 3, different=1)


def run_of(directory: Path) -> Run:
    """The run of an evaluation directory."""
    return Run(directory.parent.parent)


def read(path: Path) -> Page:
    """Parse a page."""
    return Page(path.read_text("utf-8"))


def test_report_is_one_sound_file_without_addresses(directory: Path) -> None:
    """Breaks if tags are left open, or anything would be loaded from outside the file."""
    path = write_report(directory, run_of(directory))
    assert path == directory / "report.html"
    page = read(path)
    assert all(address.startswith(("#", "data:")) for address in page.addresses), page.addresses
    text = path.read_text("utf-8")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|\bimport\(", text)
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_report_says_scores_and_the_conditions_they_hold_under(directory: Path) -> None:
    """Breaks if a headline number, an interval, a condition or the provenance is left out."""
    page = read(write_report(directory, run_of(directory)))
    summary = json.loads((directory / "summary.json").read_text())
    assert f"{summary['iou']:.3f}" in page.text
    low, high = summary["intervals"]["iou"]
    assert f"95 % interval {low:.3f} to {high:.3f}" in page.text
    for text in (*summary["conditions"].values(), "5f1c09ab77de", summary["git_commit"]):
        assert text in page.text
    assert "27 train, 9 test" in page.text
    assert "python -m anatosegnet.train experiment=demo name='<demo>'" in page.text
    assert "name: demo # <b>&amp;" in page.text  # the config, as it stands in its file
    for heading in ("By class", "By lesion size", "By BI-RADS", "By device"):
        assert heading in page.text
    low, high = summary["intervals"]["failure_auroc"]
    value = summary["risk"]["failure_auroc"]
    assert f"AUROC of failure {value:.3f} ({low:.3f} to {high:.3f})" in page.text
    assert "IoU pooled" in page.text and "IoU batch pooled" in page.text


def test_report_holds_every_case_with_its_pictures(directory: Path) -> None:
    """Breaks if cases, columns or thumbnails get lost or change places."""
    page = read(write_report(directory, run_of(directory)))
    data = json.loads(page.scripts["data"])
    with (directory / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [column["name"] for column in data["columns"]]
    assert names == [name for name in rows[0] if name != "group"]  # an empty column
    for number, (row, case) in enumerate(zip(rows, data["cases"], strict=True)):
        case = dict(zip(names, case, strict=True))
        assert case["id"] == row["id"] and case["birads"] == row["birads"]
        assert case["iou"] == float(row["iou"]) and case["lesion_area"] == int(row["lesion_area"])
        pictures = json.loads(page.scripts[f"pictures-{number}"])
        assert list(pictures) == ["image", "truth", "prediction", "error"]
        assert all(text.startswith("/9j/") for text in pictures.values())  # JPEG in base64
    assert len(data["curves"]["val/iou"]) == len(data["curves"]["train/iou"]) == 40
    assert data["curves"]["val/iou"][0][0] == 1  # epochs are counted from 1
    assert len(data["calibration"]) == 10


def test_everything_from_the_data_is_escaped(tmp_path: Path) -> None:
    """Breaks if a name or a cell can become markup, or end the script it stands in."""
    names = ["<script>hack()<!--", "\"><img src=x onerror='hack()'>", "Läsion 病変 & co"]
    directory = make_evaluation(tmp_path / "run", 3, different=1, names=names)
    scores, tables_path = directory / "scores.csv", directory / "tables.csv"
    for path in (scores, tables_path):
        path.write_text(path.read_text().replace("GE Logiq E9", "</script><script>hack()</script>"))
    summary = json.loads((directory / "summary.json").read_text())
    summary["conditions"]["split"] = "<i>not italic</i>"
    (directory / "summary.json").write_text(json.dumps(summary))
    path = write_report(directory, run_of(directory))
    page = read(path)
    assert [case[0] for case in json.loads(page.scripts["data"])["cases"]] == names
    assert "<i>not italic</i>" in page.text
    assert "</script><script>hack()</script>" in page.text
    assert "img" not in page.tags and "i" not in page.tags
    assert page.tags.count("script") == 3 + 2  # pictures of three cases; data; the program


def test_json_cannot_end_its_script_element() -> None:
    """Breaks if `<` gets through, or the text reads back otherwise."""
    text = str(embed({"a": "</script><!--<script>", "b": "ü"}))
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--<script>", "b": "ü"}
    with pytest.raises(ValueError):
        embed({"a": float("nan")})  # no JSON: the page would not open


def test_report_does_with_scores_and_summary_alone(own: Path) -> None:
    """Breaks if a part that was not written stops the report, or leaves an empty section."""
    for path in (own / "thumbnails").iterdir():
        path.unlink()
    (own / "tables.csv").unlink()
    (own / "summary.json").write_text('{"iou": 0.5, "intervals": {"iou": null}}')
    run = Run(own / "no run here")
    page = read(write_report(own, run))
    for absent in (
        "Calibration",
        "Risk and coverage",
        "Learning curves",
        "Strata",
        "Config of the run",
    ):
        assert absent not in page.text
    assert "0.500" in page.text
    assert json.loads(page.scripts["pictures-0"]) == {}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scores.csv", None, "cannot be read"),
        ("scores.csv", "id,iou\na,0.5\nb\n", "row 3 has too few"),
        ("scores.csv", "id,iou\na,0.5\na,0.6\n", "names cases twice"),
        ("scores.csv", "name,iou\na,0.5\n", "no rows with an id"),
        ("scores.csv", "id,iou\n", "no rows with an id"),
        ("summary.json", None, "cannot be read"),
        ("summary.json", "{broken", "cannot be read"),
        ("summary.json", "[1]", "holds no object"),
        ("tables.csv", "by,value\nclass\n", "too few"),
    ],
)
def test_damaged_files_are_one_line(own: Path, name: str, content: str | None, said: str) -> None:
    """Breaks if a damaged file gives a traceback, a long message, or half a report."""
    (own / name).unlink()
    if content is not None:
        (own / name).write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        write_report(own, run_of(own))
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not list(own.glob("*report*"))


def test_columns_are_numbers_only_where_all_cells_are(tmp_path: Path) -> None:
    """Breaks if BI-RADS 4 becomes 4.0, a case called NA goes missing, or infinity gets in."""
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "scores.csv").write_text(
        "id,birads,iou,hd95,note,empty\nNA,4,0.5,inf,3,\n007,5,,2,b,\n"
    )
    evaluation = Evaluation.read(tmp_path)
    columns, cases = evaluation.columns, evaluation.cases
    assert [(column.name, column.numeric) for column in columns] == [
        ("id", False), ("birads", False), ("iou", True), ("hd95", True), ("note", False),
    ]  # fmt: skip
    assert cases[0] == {"id": "NA", "birads": "4", "iou": 0.5, "hd95": None, "note": "3"}
    assert cases[1] == {"id": "007", "birads": "5", "iou": None, "hd95": 2.0, "note": "b"}


def test_learning_curves_of_one_row_an_epoch_and_of_lightning_s_csv(tmp_path: Path) -> None:
    """Breaks if either form of ``metrics.csv`` loses points, or an epoch is counted from 0."""
    run = Run(tmp_path)
    run.metrics_path.write_text(
        "epoch,train/loss,train/lr,val/iou,val/dice\n"
        "0,1.5,0.1,0.25,\n1,1.25,0.1,,\n2,1.0,0.05,0.5,nan\n"
    )
    whole = learning_curves(run)
    run.metrics_path.write_text(
        "epoch,step,train/loss,train/lr,val/iou,val/dice\n"
        "0,9,,,0.25,\n0,9,1.5,0.1,,\n1,19,1.25,0.1,,\n2,29,,,0.5,nan\n2,29,1.0,0.05,,\n2,29,,,,\n"
    )
    assert whole == learning_curves(run)
    assert whole == {
        "train/loss": [(1, 1.5), (2, 1.25), (3, 1.0)],
        "train/lr": [(1, 0.1), (2, 0.1), (3, 0.05)],
        "val/iou": [(1, 0.25), (3, 0.5)],
    }


def test_labels_are_what_people_say() -> None:
    """Breaks if a unit or an abbreviation is lost from the names of scores."""
    assert title("lesion_area_mm2") == "lesion area (mm²)"
    assert title("lesion_area") == "lesion area (px)"
    assert title("hd95") == "HD95 (px)" and title("hd95_mm") == "HD95 (mm)"
    assert title("nsd_2px") == "NSD (2 px)"
    assert title("iou_batch_pooled") == "IoU batch pooled"


def test_intervals_go_into_the_cell_of_their_score() -> None:
    """Breaks if an end is lost or swapped, or a bar does not span the column's range."""
    rows = [
        {"setting": "a", "runs": 3, "iou": 0.7, "iou_sd": 0.1, "iou_low": 0.6, "iou_high": 0.8},
        {"setting": "b", "runs": 3, "iou": 0.5, "iou_sd": 0.1, "iou_low": 0.4, "iou_high": 0.6},
        {"setting": "c", "runs": 1, "iou": 0.5, "iou_sd": 0.1, "iou_low": None, "iou_high": None},
    ]
    result = table(rows)
    assert [heading.label for heading in result.columns] == ["setting", "runs", "IoU"]
    assert [line[1].text for line in result.rows] == ["3", "3", "1"]
    first, second, third = (line[2] for line in result.rows)
    assert (first.text, first.interval, first.bar) == ("0.700", "0.600, 0.800", (50, 75, 100))
    assert (second.interval, second.bar) == ("0.400, 0.600", (0, 25, 50))
    assert (third.text, third.interval, third.bar) == ("0.500 ± 0.100", "", None)


def test_strata_become_tables_of_their_own() -> None:
    """Breaks if strata are mixed, or the row of all images is not beside them."""
    rows = [
        {"by": by, "value": value, "images": "2", "iou": "0.5"}
        for by, value in (("all", "all"), ("class", "benign"), ("device", "X"), ("device", "Y"))
    ]
    by_class, by_device = tables(rows)
    assert by_class.title == "By class"
    assert [line[0].text for line in by_device.rows] == ["X", "Y", "all"]
    assert tables([]) == []


def test_numbers_are_shown_as_in_papers() -> None:
    """Breaks if small p-values are printed as zero, or digits are invented for large numbers."""
    assert p_value(0.0002) == "< 0.001" and p_value(0.04) == "0.040"
    assert (rounded(0.71234), rounded(42.123), rounded(12345.6), rounded(3, 0)) == (
        "0.712", "42.1", "12,346", "3",
    )  # fmt: skip
    assert rounded(None) == rounded(float("inf")) == "\N{EN DASH}"


def test_comparison_holds_both_models_of_every_case(directory: Path, tmp_path: Path) -> None:
    """Breaks if scores or pictures of one model are shown under the other's name."""
    other = make_evaluation(tmp_path / "other", 9, different=3, seed=5, error=0.6)
    frame = pandas.DataFrame({"setting": ["<A>", "B"], "iou": [0.7, 0.6], "p": [None, 0.00001]})
    path = write_comparison(tmp_path, frame, {"<A>": directory, "B": other}, "1 other mask (a)")
    page = read(path)
    assert "changed data: 1 other mask (a)" in page.text
    assert path == tmp_path / "comparison.html"
    assert "< 0.001" in page.text and "<A>" in page.text
    data = json.loads(page.scripts["data"])
    assert data["runs"] == ["<A>", "B"]
    place = [score["name"] for score in data["scores"]].index("iou")
    for number, evaluation in enumerate((directory, other)):
        expected = [case["iou"] for case in Evaluation.read(evaluation).cases]
        assert [case["values"][number][place] for case in data["cases"]] == expected
        for index, case in enumerate(data["cases"]):
            pictures = json.loads(page.scripts[f"pictures-{index}"])
            own = Evaluation.read(evaluation).pictures(case["id"], ("prediction", "error"))
            assert [pictures[f"prediction {number}"], pictures[f"error {number}"]] == own


def test_the_table_of_settings_says_no_more_than_there_is() -> None:
    """Breaks if the baseline has no name, or columns that are the same for all stay."""
    frame = pandas.DataFrame({
        "setting": ["a", "b", "c"], "runs": 1, "repeated_over": "", "images": 9,
        "iou": [0.5, 0.6, 0.7], "iou_difference": [0.1, None, -0.1], "iou_p": [0.02, None, 0.03],
        "iou_p_holm": [0.04, None, 0.04], "dice_p": [0.02, None, 0.03],
    })  # fmt: skip
    rows = rows_to_show(frame)
    assert [row["setting"] for row in rows] == ["a", "b (baseline)", "c"]
    assert list(rows[0]) == ["setting", "runs", "iou", "iou_difference", "iou_p_holm", "dice_p"]
    assert list(rows_to_show(frame.assign(images=[9, 9, 8]))[0])[:3] == [
        "setting",
        "runs",
        "images",
    ]


def test_comparison_takes_only_what_all_models_scored(
    directory: Path, own: Path, tmp_path: Path
) -> None:
    """Breaks if cases are paired by their place in the file, or left out in silence."""
    rows = (own / "scores.csv").read_text().splitlines()
    (own / "scores.csv").write_text("\n".join([rows[0], rows[3], rows[1]]) + "\n")
    frame = pandas.DataFrame({"setting": ["a", "b"], "runs": 2, "iou": [0.7, 0.6], "iou_sd": 0.1,
                              "iou_low": [0.6, 0.5], "iou_high": [0.8, 0.7]})  # fmt: skip
    page = read(write_comparison(tmp_path, frame, {"a": directory, "b": own}))
    data = json.loads(page.scripts["data"])
    assert [case["id"] for case in data["cases"]] == ["phantom_0", "phantom_2"]
    scored = {case["id"]: case["iou"] for case in Evaluation.read(own).cases}
    place = [score["name"] for score in data["scores"]].index("iou")
    assert [case["values"][1][place] for case in data["cases"]] == [
        scored["phantom_0"],
        scored["phantom_2"],
    ]
    assert "7 cases that not all of the models scored are left out" in page.text
    assert "first run of each" in page.text
    assert "0.700 ± 0.100" in page.text


def test_comparison_refuses_different_cases(directory: Path, tmp_path: Path) -> None:
    """Breaks if models without a common case are set side by side."""
    names = ["x", "y", "z"]
    other = make_evaluation(tmp_path / "other", 3, different=1, names=names)
    with pytest.raises(UserError, match="share no case"):
        write_comparison(tmp_path, pandas.DataFrame({"s": [1]}), {"a": directory, "b": other})
    with pytest.raises(UserError, match="nothing to compare"):
        write_comparison(tmp_path, pandas.DataFrame({"s": [1]}), {})
    assert not (tmp_path / "comparison.html").exists()


def test_pictures_go_to_the_cases_of_largest_difference(directory: Path, tmp_path: Path) -> None:
    """Breaks if a small budget is spent on cases on which the models agree."""
    other = make_evaluation(tmp_path / "other", 9, different=3, seed=5, error=0.6)
    evaluations = {"a": Evaluation.read(directory), "b": Evaluation.read(other)}
    scored = {
        name: {str(case["id"]): case for case in evaluation.cases}
        for name, evaluation in evaluations.items()
    }
    ids = list(scored["a"])
    gaps = {name: abs(scored["a"][name]["iou"] - scored["b"][name]["iou"]) for name in ids}
    everything, without = choose_pictures(evaluations, scored, ids, "iou")
    assert without == 0 and all(len(texts) == 6 for texts in everything)
    budget = sum(len(text) for texts in everything for text in texts.values()) // 2
    pictures, without = choose_pictures(evaluations, scored, ids, "iou", budget)
    chosen = {name for name, texts in zip(ids, pictures, strict=True) if texts}
    assert 0 < len(chosen) < 9 and without == 9 - len(chosen)
    assert min(gaps[name] for name in chosen) >= max(gaps[n] for n in ids if n not in chosen)
