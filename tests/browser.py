"""A headless Chromium for the tests of the reports (a pytest plugin)."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import SessionNotCreatedException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1400,1000",
)  # fmt: skip


class Browser:
    """What the tests do in a page, in few words."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        """Open a page and wait until its script is done."""
        self.driver.get(path.as_uri())
        self.wait("document.documentElement.dataset.ready !== undefined")

    def run(self, script: str, *values: object) -> object:
        """The value of a JavaScript expression; `arguments` holds the values."""
        return self.driver.execute_script(f"return {script}", *values)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; fails after ten seconds."""
        WebDriverWait(self.driver, 10, 0.02).until(lambda _: self.run(f"Boolean({condition})"))

    def find(self, selector: str) -> WebElement:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """Number of elements."""
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def click(self, selector: str) -> None:
        """Scroll to an element and click it with the mouse."""
        node = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", node)
        node.click()

    def hover(self, node: WebElement) -> None:
        """Point at an element."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", node)
        webdriver.ActionChains(self.driver).move_to_element(node).perform()

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def choose(self, selector: str, value: str) -> None:
        """Choose in a menu."""
        script = (
            "arguments[0].value = arguments[1], arguments[0].dispatchEvent(new Event('change'))"
        )
        self.run(script, self.find(selector), value)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field in place of what is there."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def column(self, name: str) -> list[str]:
        """Texts of a column of the table of cases, from the top."""
        head = f"document.querySelector('#cases-table [data-sort={name}]').closest('th')"
        rows = "[...document.querySelectorAll('#cases-table tbody tr')]"
        texts = self.run(f"{rows}.map((row) => row.cells[{head}.cellIndex].textContent)")
        assert isinstance(texts, list)
        return texts

    def focused(self) -> str:
        """The label of the element that has the focus."""
        return str(self.run("document.activeElement.getAttribute('aria-label')"))

    def comes_to_focus(self, label: str, seconds: float = 5.0) -> bool:
        """Whether the element of that label has the focus; a closing dialog gives it back late."""
        end = time.monotonic() + seconds
        while self.focused() != label and time.monotonic() < end:
            time.sleep(0.02)
        return self.focused() == label

    def processor_time(self) -> float:
        """Seconds of processor time that the process of the page has spent."""
        self.driver.execute_cdp_cmd("Performance.enable", {})
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(entry["value"] for entry in metrics if entry["name"] == "ProcessTime")

    def complaints(self) -> list[str]:
        """What the console holds since the last call: errors, warnings, refused loads."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def media(self, **features: str) -> None:
        """Emulate a medium (``media="print"``) and preferences (``scheme="dark"``)."""
        scheme = {"name": "prefers-color-scheme", "value": features.get("scheme", "")}
        settings = {"media": features.get("media", ""), "features": [scheme]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", settings)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests; skips where none is installed."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip(
            "no Chromium with chromedriver on the PATH "
            "(Debian: apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=Service(driver_program))
    except SessionNotCreatedException as error:
        pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, of which a test must not leave complaints in the console."""
    chromium.media()
    yield chromium
    assert chromium.complaints() == []
