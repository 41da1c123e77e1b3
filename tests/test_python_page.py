"""The page for Python: its examples run as they stand there."""

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatosegnet.data.simulator import simulate
from anatosegnet.report.overlay import encode_png
from anatosegnet.run import Run

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.mark.slow
def test_every_example_runs(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a name of the page was changed, or an export gives other numbers."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run.directory, "DIR")
    phantom = simulate(5, 0)
    Path("image.png").write_bytes(encode_png(phantom.image))
    Path("mask.png").write_bytes(encode_png(phantom.mask * 255))
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 6
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for example in examples:
            exec(example, names)
    assert names["mask"].shape == phantom.mask.shape
    assert 0 <= names["scores"]["iou"] <= 1
    assert names["summary"]["images"] > 1
    assert len(names["data"].cases) == 20
    np.testing.assert_allclose(names["lesion"], names["probability"], atol=1e-4)
    np.testing.assert_array_equal(names["again"][0], names["lesion"])
