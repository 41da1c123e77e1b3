"""A sweep's directory: what its numbers mean, and how far it is."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.run_list import list_runs
from anatosegnet.sweep import Job, Sweep, settings_apart
from tests.test_runs import write_run

SHARED = ("data=phantom", "run_dir=x", "resume=auto")


def jobs(*each: str, shared: tuple[str, ...] = SHARED) -> list[Job]:
    """Jobs of ten epochs with some overrides, separated by spaces, beside the shared ones."""
    return [Job(str(n), (*shared, *own.split()), 10) for n, own in enumerate(each)]


SEEDS = jobs("seed=0", "seed=1", "seed=2")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep of three seeds."""
    sweep = Sweep(tmp_path / "sweep")
    sweep.begin(SEEDS, goes_on=True)
    return sweep


@pytest.mark.parametrize(
    "same",
    [
        SEEDS,
        jobs("seed=0", "seed=1", "seed=2", shared=SHARED[::-1]),
        jobs("seed=0", "seed=1", "seed=2", shared=("data=phantom", "data.num_workers=3")),
        jobs("seed=0", "seed=1", "seed=2", shared=(*SHARED, "callbacks.progress=null")),
        jobs("seed=0", "seed=1", "seed=2", shared=("data=phantom", "trainer.max_epochs=40")),
        jobs("seed=0", "seed=1"),
    ],
    ids=["same", "order", "circumstance", "shown", "length", "fewer"],
)
def test_the_same_grid_goes_on(sweep: Sweep, same: list[Job]) -> None:
    """Breaks if a worker on another machine, or a longer training, is taken for another grid."""
    sweep.begin(same, goes_on=True)
    assert sweep.jobs == SEEDS


def test_a_grid_may_grow(sweep: Sweep) -> None:
    """Breaks if more seeds cannot be added, or are forgotten by the progress."""
    more = jobs("seed=0", "seed=1", "seed=2", "seed=3")
    sweep.begin(more, goes_on=True)
    assert sweep.jobs == more


def placed(model: str, *own: str) -> list[Job]:
    """Two folds of a network, each in a folder that names it, with some overrides more."""
    return [
        Job(f"{model}/{fold}", (*SHARED, f"model={model}", f"split.fold={fold}", *own), 10)
        for fold in range(2)
    ]


def test_another_network_comes_to_a_sweep(sweep: Sweep) -> None:
    """Breaks if a row cannot be added to a table's folder, or the rows before it are forgotten."""
    unet, unext = placed("unet", "trainer.max_epochs=20"), placed("unext")
    sweep.begin(unet, goes_on=False)
    sweep.begin(unext, goes_on=True)
    assert sweep.jobs == [*unet, *unext]
    longer = "trainer.max_epochs=30"
    sweep.begin([*placed("unext", longer), *placed("unet", longer)], goes_on=True)
    assert sweep.jobs == [*unet, *unext]
    with pytest.raises(UserError, match="job unet/0 was begun with no loss, and would now have"):
        sweep.begin([*placed("mine"), *placed("unet", "loss=focal")], goes_on=True)
    assert sweep.jobs == [*unet, *unext]
    sweep.begin(placed("mine"), goes_on=True)
    sweep.forget(placed("mine"))
    assert sweep.jobs == [*unet, *unext]


def test_networks_that_come_at_once(sweep: Sweep) -> None:
    """Breaks if one worker's jobs are lost where another adds its own in the same moment."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: sweep.begin(placed(f"net{n}"), goes_on=True), range(8)))
    names = [f"net{n}/{fold}" for n in range(8) for fold in range(2)]
    assert sorted(job.directory for job in sweep.jobs) == ["0", "1", "2", *names]
    assert [path.name for path in sweep.directory.iterdir()] == ["sweep.json"]


def test_two_jobs_in_one_folder_are_refused(tmp_path: Path) -> None:
    """Breaks if the second seed of a fold is refused only when the first one is trained."""
    sweep = Sweep(tmp_path / "new")
    grid = [*placed("unet", "seed=0"), *placed("unet", "seed=1")]
    with pytest.raises(UserError, match="one folder, unet/0: seed=0 and seed=1; give"):
        sweep.begin(grid, goes_on=True)
    with pytest.raises(UserError, match="one folder, unet/0: they are the same; give each value"):
        sweep.begin(grid[:2] * 2, goes_on=True)
    assert not sweep.directory.exists()


OTHERS = {
    "job 1 was begun with seed=1, and would now have seed=2": jobs("seed=0", "seed=2", "seed=1"),
    "job 0 was begun with no model, and would now have model=unet": jobs(
        "seed=0", "seed=1", "seed=2", shared=(*SHARED, "model=unet")
    ),
    "job 0 was begun with no callbacks.early_stopping.monitor, and would now have": jobs(
        "seed=0", "seed=1", shared=(*SHARED, "callbacks.early_stopping.monitor=val/dice")
    ),
    "job 0 was begun with data=phantom, and would now have data=busi": jobs(
        "seed=0", "seed=1", shared=("data=busi",)
    ),
    "job 0 was begun with no trainer.max_epochs, and would now have trainer.max_epochs=3": jobs(
        "seed=0 trainer.max_epochs=3", "seed=1 trainer.max_epochs=5"
    ),
    "job 0 was begun with no from_run, and would now have from_run='../a'": jobs(
        "seed=0", "seed=1", "seed=2", shared=(*SHARED, "from_run=../a")
    ),
}


@pytest.mark.parametrize("said", OTHERS)
def test_another_grid_is_refused(sweep: Sweep, said: str) -> None:
    """Breaks if a job's number comes to mean other settings, or nobody says which."""
    before = sweep.path.read_bytes()
    with pytest.raises(UserError, match="is the sweep of another grid") as error:
        sweep.begin(OTHERS[said], goes_on=True)
    assert said in str(error.value)
    assert sweep.path.read_bytes() == before


def test_the_same_value_in_other_words(tmp_path: Path) -> None:
    """Breaks if 1e-3 and 0.001 are two settings."""
    sweep = Sweep(tmp_path)
    sweep.begin(jobs("optimizer.lr=1e-3", "optimizer.lr=0.01"), goes_on=True)
    sweep.begin(jobs("optimizer.lr=0.001", "optimizer.lr=1e-2"), goes_on=True)


def test_a_sweep_that_has_begun_is_not_begun_again(sweep: Sweep) -> None:
    """Breaks if another sweep is mixed into the runs of one, or one without runs is in the way."""
    sweep.begin(jobs("seed=5"), goes_on=False)
    assert sweep.jobs == jobs("seed=5")
    write_run(sweep.directory / "0", state="finished")
    with pytest.raises(UserError, match="already holds a sweep; go on with it: resume=auto"):
        sweep.begin(SEEDS, goes_on=False)


def test_settings_apart() -> None:
    """Breaks if the table leaves out what tells two jobs apart, or shows what all have."""
    grid = jobs("seed=0", "seed=1 model=unet", "seed=2 model=unet")
    assert settings_apart(grid) == {"seed": ["0", "1", "2"], "model": ["", "unet", "unet"]}
    assert settings_apart([]) == {}


def test_how_far_a_sweep_is(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a job is counted wrongly, lost from the table, or the time left is of one worker.

    One epoch takes a minute in job 0, and two in job 1, of which eight are left; the job that
    waits takes 1.25 an epoch, and whoever is done first trains it.
    """
    now = time.time()
    grid = jobs(*(f"seed={seed} model.attention.bias=none" for seed in range(6)))
    sweep.begin([*SEEDS, *grid[3:]], goes_on=True)
    write_run(sweep.directory / "0", 4, state="finished", minutes=4, began=now - 300)
    first = write_run(sweep.directory / "1", 2, state="running", began=now - 240)
    write_run(sweep.directory / "2", 2, state="failed", minutes=2, began=now - 500)
    write_run(sweep.directory / "3", 0, state="running", began=now - 1e6)  # its process is gone
    with Run(first).locked(), Run(sweep.directory / "4").locked():
        lines = list_runs(sweep.directory)
    assert [line.state for line in lines] == [
        "finished", "running", "failed", "stopped", "running", "waiting",
    ]  # fmt: skip
    output = capsys.readouterr().out.splitlines()
    assert output[0] == (
        "sweep   6 jobs: 1 finished, 2 running, 1 interrupted, 1 failed, 1 waiting"
    )
    # 10 min for 8 epochs; running: 8 · 2 and 10 · 1.25 min, then one more of 12.5 min each
    assert output[1].startswith("epochs  8 of 46; about ")
    assert output[1].endswith(" left for 2 workers")
    assert output[2].split()[:4] == ["run", "seed", "bias", "state"]
    assert output[4].split()[:4] == ["1", "1", "-", "running"]
    assert output[8].split() == ["5", "5", "none", "waiting", "0/10", "-", "-", "-", "-"]


def test_a_damaged_record_costs_one_line(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if runs are hidden by a record that cannot be read."""
    write_run(sweep.directory / "0", state="finished")
    damaged = '{"jobs": [{"directory": "0", "overrides": ["a="b"], "epochs": 1}]}'
    for content in ("{", "[]", '{"jobs": [1]}', '{"jobs": [{"directory": "0"}]}', damaged):
        sweep.path.write_text(content)
        assert [line.name for line in list_runs(sweep.directory)] == ["0"]
        assert f"remark: {sweep.path}" in capsys.readouterr().out
