"""The reports in a real browser: sorting, filtering, enlarging, keyboard, speed."""

import base64
import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from anatosegnet.report import write_comparison, write_report
from anatosegnet.run import Run
from tests.browser import Browser
from tests.evaluations import make_evaluation

pytestmark = pytest.mark.slow
CASES = 26


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Path:
    """A report of 26 cases."""
    run = tmp_path_factory.mktemp("report") / "run"
    return write_report(make_evaluation(run, CASES, different=6, drawn=12), Run(run))


@pytest.fixture(scope="module")
def comparison(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of the report's evaluation with a worse one and a third."""
    folder = tmp_path_factory.mktemp("comparison")
    runs = {"first": report.parent}
    for name, error in (("second", 0.7), ("third", 0.5)):
        runs[name] = make_evaluation(
            folder / name, CASES, seed=3, error=error, different=6, drawn=12
        )
    frame = pandas.DataFrame({"setting": list(runs), "iou": [0.7, 0.5, 0.6]})
    return write_comparison(folder, frame, runs)


@pytest.fixture(scope="module")
def rows(report: Path) -> list[dict[str, str]]:
    """The rows of the report's scores.csv."""
    with (report.parent / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def test_650_cases_open_in_two_seconds(
    tmp_path: Path, browser: Browser, record_property: Callable[[str, object], None]
) -> None:
    """Breaks if the file grows beyond 25 MB, opens slowly, or builds all pictures at once."""
    path = write_report(
        make_evaluation(tmp_path / "run", 650, different=6, drawn=12), Run(tmp_path / "run")
    )
    assert path.stat().st_size < 25e6
    seconds, processor = [], []
    for _ in range(3):
        before = browser.processor_time()
        browser.open(path)
        browser.wait("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
        processor.append(browser.processor_time() - before)
        timing = browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
        seconds.append(float(str(timing)))
    record_property("seconds", seconds)
    record_property("processor seconds", processor)
    record_property("megabytes", path.stat().st_size / 1e6)
    print(f"{path.stat().st_size / 1e6:.1f} MB; {seconds} s, of the processor {processor} s")
    assert min(processor) < 2
    if os.getloadavg()[0] < (os.cpu_count() or 1):  # else the others' work is measured
        assert min(seconds) < 2
    assert browser.count("#cases-table tbody tr") == 650
    drawn = "document.querySelectorAll('#cases-table tbody img[src]').length"
    assert 0 < int(str(browser.run(drawn))) < 400  # of 2600
    browser.run("document.querySelector('#cases-table tbody tr:last-child').scrollIntoView()")
    browser.wait("document.querySelector('#cases-table tbody tr:last-child img').naturalWidth > 0")
    assert int(str(browser.run(drawn))) < 900


def test_nothing_is_loaded_from_elsewhere(report: Path, browser: Browser) -> None:
    """Breaks if the page asks for any other file, or the browser has a complaint."""
    browser.open(report)
    names = browser.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert isinstance(names, list)
    assert all(name.startswith("data:") for name in names)
    for plot in ("histogram", "scatter", "reliability", "losses", "learning"):
        assert browser.count(f"#{plot} svg.plot") == 1
    assert browser.count("#scatter .mark") == CASES
    assert browser.count("#gallery .example") == 15


def test_headers_sort(report: Path, rows: list[dict[str, str]], browser: Browser) -> None:
    """Breaks if sorting is wrong, treats numbers as text, or is not told to screen readers."""
    browser.open(report)
    worst_first = sorted(f"{float(row['iou']):.3f}" for row in rows)
    assert browser.column("iou") == worst_first
    browser.click("[data-sort=iou]")
    assert browser.column("iou") == worst_first[::-1]
    states = "[...document.querySelectorAll('#cases-table th[aria-sort]')].map((h) => h.ariaSort)"
    assert sorted(browser.run(states)).count("descending") == 1  # type: ignore[call-overload]
    browser.click("[data-sort=id]")
    assert browser.column("id") == [f"phantom_{number}" for number in range(CASES)]  # 2 before 10
    browser.press("ENTER")  # the header keeps the focus
    assert browser.column("id")[0] == f"phantom_{CASES - 1}"
    browser.click("[data-sort=hd95]")
    values = [float(text) for text in browser.column("hd95")]
    assert values == sorted(values)


def test_filters_combine(report: Path, rows: list[dict[str, str]], browser: Browser) -> None:
    """Breaks if a filter shows too much or too little, or its count is wrong."""
    browser.open(report)
    browser.choose("[data-column=class]", "benign")
    browser.fill("#from", "0.5")
    browser.fill("#search", "samsung")
    expected = {
        row["id"]
        for row in rows
        if row["class"] == "benign" and float(row["iou"]) >= 0.5 and "Samsung" in row["device"]
    }
    assert 0 < len(expected) < CASES
    assert set(browser.column("id")) == expected
    assert browser.find("#count").text == f"{len(expected)} of {CASES} cases"
    browser.fill("#search", "no such case")
    assert browser.column("id") == []
    browser.click("#clear")
    assert len(browser.column("id")) == CASES
    assert browser.find("#count").text == f"{CASES} cases"


def test_a_bar_lists_its_cases(report: Path, rows: list[dict[str, str]], browser: Browser) -> None:
    """Breaks if the histogram counts other cases than the table shows for the same range."""
    browser.open(report)
    values = [float(row["iou"]) for row in rows]
    for bar in browser.driver.find_elements("css selector", "#histogram .bar"):
        browser.run("arguments[0].dispatchEvent(new MouseEvent('click'))", bar)
        low, high = (float(str(browser.run(f"find('{end}').value"))) for end in ("from", "to"))
        assert high - low == pytest.approx(0.05)
        shown = [float(text) for text in browser.column("iou")]
        assert shown == sorted(float(f"{v:.3f}") for v in values if low <= v <= high)
        assert shown


def test_columns_can_be_shown(report: Path, rows: list[dict[str, str]], browser: Browser) -> None:
    """Breaks if a column of scores.csv cannot be seen."""
    browser.open(report)
    assert browser.count("[data-sort=specificity]") == 0
    browser.click(".menu summary")
    browser.run(
        "[...document.querySelectorAll('#columns label')]"
        ".find((label) => label.textContent.includes('specificity')).click()"
    )
    worst = min(rows, key=lambda row: float(row["iou"]))
    assert browser.column("specificity")[0] == f"{float(worst['specificity']):.3f}"


def test_enlarging_by_mouse(report: Path, rows: list[dict[str, str]], browser: Browser) -> None:
    """Breaks if a click shows another case, a picture is missing, or closing loses the place."""
    browser.open(report)
    names = browser.column("id")
    browser.click(f"tr[data-id={names[2]}] .thumbs")
    assert browser.find("#enlarged-title").text == names[2]
    assert browser.find("#enlarged-position").text == f"3 of {CASES}"
    browser.wait(
        "[...document.querySelectorAll('#enlarged img')].filter((i) => i.naturalWidth).length === 4"
    )
    alternatives = "[...document.querySelectorAll('#enlarged img')].map((image) => image.alt)"
    assert browser.run(alternatives) == [
        f"{kind} of {names[2]}" for kind in ("image", "truth", "prediction", "errors")
    ]
    worst = sorted(rows, key=lambda row: float(row["iou"]))[2]
    facts = browser.find("#enlarged-facts").text
    assert worst["device"] in facts and f"{float(worst['dice']):.3f}" in facts
    browser.click("#next")
    assert browser.find("#enlarged-title").text == names[3]
    browser.click("#previous")
    browser.click("#previous")
    assert browser.find("#enlarged-title").text == names[1]
    browser.click("#close")
    assert not browser.find("#enlarged").is_displayed()
    assert browser.comes_to_focus(f"Enlarge {names[1]}")


def test_everything_works_by_keyboard(report: Path, browser: Browser) -> None:
    """Breaks if a case cannot be reached, enlarged, walked through and closed without a mouse."""
    browser.open(report)
    browser.choose("[data-column=class]", "malignant")
    names = browser.column("id")
    assert len(names) > 2
    browser.press("TAB")
    assert browser.run("document.activeElement.className") == "skip"
    browser.run("document.querySelector('#cases-table .thumbs').focus()")
    browser.press("ARROW_DOWN", "j", "k")
    assert browser.comes_to_focus(f"Enlarge {names[1]}")
    browser.press("ENTER")
    title = browser.find("#enlarged-title")
    assert title.text == names[1]
    for key, expected in (("j", 2), ("ARROW_LEFT", 1), ("k", 0), ("k", 0), ("ARROW_RIGHT", 1)):
        browser.press(key)
        assert title.text == names[expected]
    browser.press(*["j"] * (len(names) + 1))
    assert title.text == names[-1]  # the end of those shown
    browser.press("ESCAPE")
    assert not browser.find("#enlarged").is_displayed()
    assert browser.comes_to_focus(f"Enlarge {names[-1]}")


def test_points_tell_and_open_their_case(
    report: Path, rows: list[dict[str, str]], browser: Browser
) -> None:
    """Breaks if a point of the scatter plot stands for another case, or needs a mouse."""
    browser.open(report)
    tip, title = browser.find("#tip"), browser.find("#enlarged-title")
    browser.hover(browser.find("#scatter .mark:last-child"))  # the topmost: nothing covers it
    name = browser.find("#scatter .mark:last-child").get_attribute("data-id")
    assert tip.text.splitlines()[0] == name
    browser.find("#scatter .mark:last-child").click()
    assert title.text == name and not tip.is_displayed()
    browser.press("ESCAPE")
    browser.open(report)
    tip, title = browser.find("#tip"), browser.find("#enlarged-title")
    browser.run("document.querySelector('#scatter svg').focus()")
    browser.press("ARROW_RIGHT", "ARROW_RIGHT", "ARROW_LEFT")
    smallest = min(float(row["lesion_area_mm2"]) for row in rows)
    expected = {row["id"] for row in rows if float(row["lesion_area_mm2"]) == smallest}
    assert tip.text.splitlines()[0] in expected
    browser.press("ENTER")
    assert title.text in expected
    browser.press("ESCAPE")
    assert browser.run("document.activeElement.closest('#scatter') !== null")  # back where it was


def test_score_menu_redraws_both_charts(report: Path, browser: Browser) -> None:
    """Breaks if a chart goes on showing IoU under another score's name."""
    browser.open(report)
    browser.choose("#score", "hd95")
    for plot in ("histogram", "scatter"):
        assert "HD95 (px)" in str(browser.find(f"#{plot} svg").get_attribute("aria-label"))
        assert "HD95 (px)" in browser.find(f"#{plot}").text


def test_dark_light_and_print(report: Path, browser: Browser) -> None:
    """Breaks if the system's theme is not followed, the choice is lost, or paper is dark."""
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.media(scheme="dark")
    browser.open(report)
    assert browser.run(paper) == "rgb(20, 23, 26)"
    browser.click("#theme")
    assert browser.find("#theme").text == "Theme: light"
    assert browser.run(paper) == "rgb(255, 255, 255)"
    browser.click("#theme")
    browser.media(scheme="light")
    browser.open(report)  # the choice is kept
    assert browser.run(paper) == "rgb(20, 23, 26)"
    browser.media(media="print")
    assert browser.run(paper) == "rgb(255, 255, 255)"
    for hidden in ("nav", ".filters", "#theme"):
        assert not browser.find(hidden).is_displayed()
    rows = "[...document.querySelectorAll('#cases-table tbody tr')]"
    assert browser.run(f"{rows}.filter((row) => row.offsetHeight).length") == 24
    assert f"24 of {CASES} cases are printed" in browser.find("#printed").text
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
    browser.media()
    browser.click("#theme")


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_narrow_windows_need_no_sideways_scrolling(
    kind: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    """Breaks if the page as a whole is wider than a phone (tables scroll inside themselves)."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(request.getfixturevalue(kind))
        assert browser.run("innerWidth") == 390
        page = "document.documentElement"
        assert browser.run(f"{page}.scrollWidth <= {page}.clientWidth")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_every_control_has_a_name(
    kind: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    """Breaks if a screen reader meets a button, menu, field or picture that says nothing."""
    browser.open(request.getfixturevalue(kind))
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "combobox", "searchbox", "spinbutton", "checkbox", "link", "application")
    seen: dict[str, int] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            assert node["name"]["value"].strip(), f"{role} without a name"
            seen[role] = seen.get(role, 0) + 1
    assert seen["button"] > CASES and seen["combobox"] >= 3 and seen["application"] >= 1


def test_names_cannot_become_markup(tmp_path: Path, browser: Browser) -> None:
    """Breaks if a case name or a cell is read as HTML, or a strange name cannot be used."""
    names = [
        "<b>bold<script>window.hacked=1<!--",
        "\"><img src=x onerror='window.hacked=1'>",
        "病変 'x'",
    ]
    directory = make_evaluation(tmp_path / "run", 3, different=1, names=names)
    scores = directory / "scores.csv"
    attack = "</script><script>window.hacked=1</script>"
    scores.write_text(scores.read_text().replace("GE Logiq E9", attack))
    browser.open(write_report(directory, Run(tmp_path / "run")))
    assert set(browser.column("id")) == set(names)
    assert attack in browser.column("device")
    for name in browser.column("id"):
        browser.run("[...document.querySelectorAll('.thumbs')].find((b) => b.ariaLabel.endsWith("
                    "arguments[0])).click()", name)  # fmt: skip
        assert browser.find("#enlarged-title").text == name
        browser.wait("document.querySelector('#enlarged img').naturalWidth > 0")
        browser.press("ESCAPE")
    assert browser.run("window.hacked") is None


def test_missing_parts_leave_a_working_page(tmp_path: Path, browser: Browser) -> None:
    """Breaks if a report without pictures, curves, areas or calibration stops half-way."""
    directory = make_evaluation(tmp_path / "run", 3, different=1)
    for path in (directory / "thumbnails").iterdir():
        path.unlink()
    (directory / "scores.csv").write_text("id,iou\na,0.5\nb,\nc,1\n")
    (directory / "summary.json").write_text('{"iou": 0.75}')
    browser.open(write_report(directory, Run(tmp_path / "none")))
    assert browser.column("id") == ["a", "c", "b"]  # without a score: last
    browser.press("TAB")
    browser.run("document.querySelector('.thumbs').click()")
    assert browser.find("#enlarged-panes").text.count("no picture") == 4


def test_risk_and_coverage_are_drawn(report: Path, comparison: Path, browser: Browser) -> None:
    """Breaks if a curve is not that of the summary, leaves its plot, or a model has none."""
    for page, names in ((report, ["by uncertainty"]), (comparison, ["first", "second", "third"])):
        browser.open(page)
        assert browser.count("#risk path.curve") == len(names)
        assert [name in browser.find("#risk").text for name in names] == [True] * len(names)
        inside = browser.run(
            "[...document.querySelectorAll('#risk path.curve')].every((path) => {"
            "const box = path.getBBox(), view = path.ownerSVGElement.viewBox.baseVal;"
            "return box.x >= 58 && box.x + box.width <= 545 && box.y >= 20"
            " && box.y + box.height <= view.height - 45; })"
        )
        assert inside is True
    summary = json.loads((report.parent / "summary.json").read_text())
    curve = summary["risk"]["risk_coverage"]
    assert len(curve) == CASES and curve[-1] == [1, pytest.approx(summary["iou"])]


def test_comparison_shows_where_models_disagree(comparison: Path, browser: Browser) -> None:
    """Breaks if a difference has the wrong sign or models, or disagreements are not first."""
    browser.open(comparison)
    gaps = [float(text) for text in browser.column("gap")]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0
    for pair in (("0", "1"), ("0", "2"), ("2", "1")):
        browser.choose("#first", pair[0])
        browser.choose("#second", pair[1])
        one, other = browser.column("one"), browser.column("other")
        differences = [float(text) for text in browser.column("difference")]
        assert len(differences) == CASES
        for a, b, difference in zip(one, other, differences, strict=True):
            assert float(b) - float(a) == pytest.approx(difference, abs=0.0011)
        ahead = sum(difference > 0 for difference in differences)
        assert f"is ahead on {ahead} of {CASES} cases" in browser.find("#summary").text
        assert browser.count("#waterfall .bar") == browser.count("#pairs .mark") == CASES
    names = browser.run("JSON.parse(find('data').textContent).runs")
    assert names == ["first", "second", "third"]
    worst = browser.column("id")[0]
    browser.click(f"tr[data-id={worst}] .thumbs")
    panes = browser.find("#enlarged-panes").text.splitlines()
    assert panes == ["image", "truth", "errors of third", "errors of second"]
    browser.wait(
        "[...document.querySelectorAll('#enlarged img')].filter((i) => i.naturalWidth).length === 4"
    )
    browser.press("j")
    assert browser.find("#enlarged-title").text == browser.column("id")[1]
    browser.press("ESCAPE")
