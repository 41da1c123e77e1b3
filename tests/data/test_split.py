"""Splits: sizes, classes, the same on every machine, and lists that do not fit."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatosegnet.data.case import Case
from anatosegnet.data.recorded_split import RecordedSplit, write_split
from anatosegnet.data.split import (
    FilesSplit,
    HoldoutSplit,
    KFoldSplit,
    OfficialSplit,
    ReleasedSplit,
    Split,
    Splitter,
    benchmark_split,
)
from anatosegnet.data.stratify import grouped_parts
from anatosegnet.errors import UserError


def make_cases(**counts: int) -> list[Case]:
    """``make_cases(benign=2)`` = benign (1), benign (2)."""
    return [
        Case(f"{label} ({number})", label=label)
        for label, count in counts.items()
        for number in range(1, count + 1)
    ]


BUSI = make_cases(benign=437, malignant=210)
BREAST = make_cases(benign=154, malignant=98)
TEN = make_cases(benign=6, malignant=4)


def sizes(split: Split) -> list[int]:
    """Cases in train, val and test."""
    return [len(split.train), len(split.val), len(split.test)]


def write_list(path: Path, names: Iterable[str], end: str = "\n") -> str:
    """Write a list of names and return its path as text."""
    path.write_bytes("".join(name + end for name in names).encode())
    return str(path)


def test_holdout_sizes_and_classes() -> None:
    """Breaks if a share is off, or a class is over-represented in a part."""
    split = HoldoutSplit()(BUSI)
    assert sizes(split) == [453, 65, 129]
    for part, share in ((split.train, 0.7), (split.val, 0.1), (split.test, 0.2)):
        counts = Counter(name.split()[0] for name in part)
        assert abs(counts["benign"] - share * 437) <= 1
        assert abs(counts["malignant"] - share * 210) <= 1


@given(
    benign=st.integers(0, 40),
    malignant=st.integers(0, 40),
    shares=st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_holdout_loses_no_case(benign: int, malignant: int, shares: tuple[int, int, int]) -> None:
    """Breaks if rounding drops or doubles a case, for any shares and class sizes."""
    cases = make_cases(benign=benign, malignant=malignant)
    split = HoldoutSplit([share / sum(shares) for share in shares])(cases)
    assert sorted(split.train + split.val + split.test) == sorted(case.name for case in cases)


@pytest.mark.parametrize(
    "splitter", [HoldoutSplit(seed=3), ReleasedSplit()], ids=["holdout", "80/20"]
)
@given(order=st.permutations(TEN))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_split_does_not_depend_on_the_order(splitter: Splitter, order: list[Case]) -> None:
    """Breaks if the directory's order leaks into the split, as in the released code."""
    assert splitter(order) == splitter(TEN)


def test_golden_assignment() -> None:
    """Breaks if another machine, Python or version assigns the cases otherwise."""
    split = HoldoutSplit(seed=0)(TEN)
    assert split.train == (
        "benign (2)",
        "benign (4)",
        "benign (5)",
        "benign (6)",
        "malignant (1)",
        "malignant (2)",
        "malignant (4)",
    )
    assert split.val == ("benign (3)",)
    assert split.test == ("benign (1)", "malignant (3)")
    released = ReleasedSplit()(TEN)
    assert released.test == ("malignant (4)", "malignant (3)")
    assert HoldoutSplit(seed=1)(TEN) != split
    assert ReleasedSplit(seed=1)(TEN).test != released.test


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)], ids=["two", "sum", "negative"]
)
def test_bad_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    """Breaks if shares that lose or double cases pass."""
    with pytest.raises(UserError, match=r"split\.fractions"):
        HoldoutSplit(fractions)


@pytest.mark.parametrize(("cases", "expected"), [(BUSI, [517, 130]), (BREAST, [201, 51])])
def test_released_split(cases: list[Case], expected: list[int]) -> None:
    """Breaks if the authors' sizes are missed, or scores hide how their epoch was chosen."""
    split = ReleasedSplit()(cases)
    assert [len(split.train), len(split.test)] == expected
    assert split.val == split.test
    assert not set(split.train) & set(split.test)
    assert "on the test cases themselves" in split.selection
    assert "separate" in HoldoutSplit()(cases).selection


@pytest.mark.parametrize(
    ("end", "encoding"),
    [("\n", "utf-8"), ("\r\n", "utf-8-sig"), (".png\n", "utf-8"), (".PNG  \r\n\r\n", "utf-8")],
    ids=["plain", "windows", "suffix", "untidy"],
)
def test_lists_of_many_hands(tmp_path: Path, end: str, encoding: str) -> None:
    """Breaks if a line end, a byte-order mark or a suffix hides a name."""
    cases = [*make_cases(benign=9), Case("Läsion.v2", label="benign")]
    names = [case.name for case in cases]
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_bytes("".join(name + end for name in names[:7]).encode(encoding))
    # macOS writes accents apart
    decomposed = [name.replace("ä", "a\u0308") for name in names[7:]]
    test.write_bytes("".join(name + end for name in decomposed).encode(encoding))
    split = FilesSplit(str(train), str(test))(cases)
    assert set(split.test) == set(names[7:])
    assert set(split.train) | set(split.val) == set(names[:7])


def test_files_hold_out_a_tenth(tmp_path: Path) -> None:
    """Breaks if the epoch is chosen on test cases, or a tenth is not stratified."""
    cases = make_cases(benign=40, malignant=20, normal=5)
    names = [case.name for case in cases]
    train = write_list(tmp_path / "train.txt", names[:60])
    test = write_list(tmp_path / "test.txt", names[60:])
    split = FilesSplit(train, test)(cases)
    assert Counter(name.split()[0] for name in split.val) == {"benign": 4, "malignant": 2}
    assert sizes(split) == [54, 6, 5]
    assert "tenth of train" in split.description
    assert "separate" in split.selection
    assert FilesSplit(train, test, seed=1)(cases).val != split.val


def test_files_say_when_validation_is_test(tmp_path: Path) -> None:
    """Breaks if validating on the test list, whole or in part, passes as separate."""
    names = [case.name for case in TEN]
    train = write_list(tmp_path / "train.txt", names[:6])
    test = write_list(tmp_path / "test.txt", names[6:])
    part = write_list(tmp_path / "part.txt", [*names[6:8]])
    assert "validation = test" in FilesSplit(train, test, val=test)(TEN).selection
    assert "2 of them test cases" in FilesSplit(train, test, val=part)(TEN).selection


@pytest.mark.parametrize(
    ("train", "val", "test", "message"),
    [
        (["benign (1)", "nobody"], None, ["benign (2)"], r"1 names in .*train\.txt.*nobody"),
        (["benign (1).dcm"], None, ["benign (2)"], r"benign \(1\)\.dcm"),
        (["benign (1)", "benign (1).png"], None, ["benign (2)"], r"train\.txt names cases twice"),
        (["benign (1)", "benign (2)"], None, ["benign (2)"], "both in train and in test"),
        (["benign (1)", "benign (3)"], ["benign (3)"], ["benign (2)"], "train and in validation"),
        ([], None, ["benign (2)"], r"train\.txt is empty"),
        (["benign (1)"], None, [" "], r"test\.txt is empty"),
    ],
    ids=["unknown", "suffix", "repeated", "leak", "val leak", "empty", "blank"],
)
def test_bad_lists_are_named(
    tmp_path: Path, train: list[str], val: list[str] | None, test: list[str], message: str
) -> None:
    """Breaks if a list that does not fit the data gives a traceback, or passes."""
    lists = {"train": train, "val": val, "test": test}
    files = {
        part: write_list(tmp_path / f"{part}.txt", names)
        for part, names in lists.items()
        if names is not None
    }
    with pytest.raises(UserError, match=message) as caught:
        FilesSplit(**files)(TEN)
    assert "\n" not in str(caught.value)


def test_unreadable_lists(tmp_path: Path) -> None:
    """Breaks if a missing list or one in another encoding gives a traceback."""
    other = tmp_path / "utf16.txt"
    other.write_text("benign (1)\n", encoding="utf-16")
    for path in (tmp_path / "none.txt", other):
        with pytest.raises(UserError, match=r"the list .*\.txt cannot be read"):
            FilesSplit(str(path), str(path))(TEN)


def test_the_benchmark_validates_in_the_order_of_its_list(tmp_path: Path) -> None:
    """Breaks if the validation cases are sorted: scores pooled in batches of 8 would be others."""
    order = ["malignant (2)", "benign (10)", "malignant (1)", "benign (9)"]
    write_list(tmp_path / "busi_train2.txt", [f"benign ({number})" for number in range(1, 9)])
    write_list(tmp_path / "busi_val2.txt", order)
    cases = make_cases(benign=10, malignant=2)
    split = benchmark_split(str(tmp_path), fold=2)(cases)
    assert list(split.val) == list(split.test) == order
    write_split(tmp_path / "split.csv", split, cases)
    assert RecordedSplit(tmp_path / "split.csv")(cases).test == split.test


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_the_order_of_the_public_lists(fold: int, real_data: Path) -> None:
    """Breaks if the published order of a validation list is lost; its first and last are pinned."""
    ends = {
        1: ("benign (301)", "malignant (191)"),
        2: ("benign (40)", "malignant (21)"),
        3: ("benign (128)", "malignant (148)"),
    }
    split = benchmark_split(str(real_data / "splits"), fold)(BUSI)
    lines = (real_data / "splits" / f"busi_val{fold}.txt").read_text().split("\n")
    assert list(split.val) == list(split.test) == [line for line in lines if line]
    assert (split.val[0], split.val[-1]) == ends[fold]
    assert [len(split.train), len(split.val)] == [452, 195]


def test_public_lists(real_data: Path) -> None:
    """Breaks if the benchmark's 452/195 lists stop fitting BUSI's names."""
    for number in (1, 2, 3):
        train, test = (
            str(real_data / "splits" / f"busi_{part}{number}.txt") for part in ("train", "val")
        )
        split = FilesSplit(train, test)(BUSI)
        assert len(split.train) + len(split.val) == 452
        assert len(split.val) in (45, 46)
        assert len(split.test) == 195
        assert set(split.train + split.val + split.test) == {case.name for case in BUSI}


@pytest.mark.parametrize("splitter", [HoldoutSplit(), ReleasedSplit()], ids=["holdout", "released"])
def test_recorded_split_is_the_one_written(tmp_path: Path, splitter: Splitter) -> None:
    """Breaks if a run cannot be evaluated on its own parts, or Excel's byte-order mark hurts."""
    cases = [*TEN, Case('odd, "name" ä', label="benign")]
    split = splitter(cases)
    path = tmp_path / "split.csv"
    write_split(path, split, cases)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    recorded = RecordedSplit(path)(cases)
    assert (recorded.train, recorded.val, recorded.test) == (split.train, split.val, split.test)
    assert recorded.selection == split.selection
    assert "split.csv" in recorded.description


def test_recorded_split_misses_cases(tmp_path: Path) -> None:
    """Breaks if a run is scored on fewer cases than it recorded."""
    path = tmp_path / "split.csv"
    write_split(path, HoldoutSplit()(TEN), TEN)
    with pytest.raises(UserError, match=r"2 cases of .* are not in the data: benign \(1\)"):
        RecordedSplit(path)(TEN[2:])


@pytest.mark.parametrize(
    "content", [None, b"a,b\n1,2\n", b"id,class,part\nx,benign,dev\n", b"id,part\n\x00\xff\n"]
)
def test_damaged_record(tmp_path: Path, content: bytes | None) -> None:
    """Breaks if a damaged split.csv gives a traceback."""
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a split"):
        RecordedSplit(path)(TEN)


@st.composite
def grouped_cases(draw: st.DrawFn, mixed: bool = False) -> list[Case]:
    """Up to 60 cases in groups of 1 to 5; a group has one class, or where mixed up to three."""
    cases = []
    for group in range(draw(st.integers(3, 24))):
        label = draw(st.sampled_from(["benign", "malignant", "normal"]))
        for _ in range(draw(st.integers(1, 5))):
            if mixed:
                label = draw(st.sampled_from(["benign", "malignant", "normal"]))
            cases.append(Case(f"c{len(cases)}", label=label, group=f"g{group}"))
    return cases


def largest_group(cases: Iterable[Case]) -> int:
    """Cases in the largest group."""
    return max(Counter(case.group for case in cases).values())


def group_of(cases: Iterable[Case]) -> dict[str, str]:
    """Group by name."""
    return {case.name: case.group for case in cases}


@given(
    cases=st.one_of(grouped_cases(), grouped_cases(mixed=True)),
    shares=st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_no_group_crosses_and_no_case_is_lost(
    cases: list[Case], shares: tuple[int, int, int], seed: int
) -> None:
    """Breaks if a patient or a picture lies on two sides, for any groups, shares and seed."""
    parts = grouped_parts(cases, [share / sum(shares) for share in shares], seed)
    assert sorted(name for part in parts for name in part) == sorted(c.name for c in cases)
    group = group_of(cases)
    sides = [{group[name] for name in part} for part in parts]
    assert sum(map(len, sides)) == len(set(group.values()))


@given(
    cases=grouped_cases(),
    shares=st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_classes_are_off_by_less_than_a_group(
    cases: list[Case], shares: tuple[int, int, int], seed: int
) -> None:
    """Breaks if grouping costs the stratification: a class' share is off by more than a group."""
    fractions = [share / sum(shares) for share in shares]
    label = {case.name: case.label for case in cases}
    totals = Counter(label.values())
    for part, fraction in zip(grouped_parts(cases, fractions, seed), fractions, strict=True):
        counts = Counter(label[name] for name in part)
        for kind, total in totals.items():
            largest = largest_group(case for case in cases if case.label == kind)
            assert abs(counts[kind] - fraction * total) <= largest + 1e-6


@given(cases=grouped_cases(mixed=True), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_pure_groups_make_up_for_mixed_ones(cases: list[Case], seed: int) -> None:
    """Breaks if groups of several classes push the classes apart though others could level them."""
    everything = cases + make_cases(benign=60, malignant=60, normal=60)
    label = {case.name: case.label for case in everything}
    totals = Counter(label.values())
    for part in grouped_parts(everything, (0.5, 0.5), seed):
        counts = Counter(label[name] for name in part)
        for kind, total in totals.items():
            assert abs(counts[kind] - 0.5 * total) <= largest_group(cases)


@given(
    cases=st.one_of(grouped_cases(), grouped_cases(mixed=True)),
    folds=st.integers(2, 5),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_every_case_is_tested_once_over_the_folds(cases: list[Case], folds: int, seed: int) -> None:
    """Breaks if a case is tested twice or never, or trains in the fold that tests it."""
    group, tested = group_of(cases), []
    for fold in range(folds):
        split = KFoldSplit(folds, fold, seed=seed)(cases)
        parts = (split.train, split.val, split.test)
        assert sorted(name for part in parts for name in part) == sorted(group)
        sides = [{group[name] for name in part} for part in parts]
        assert sum(map(len, sides)) == len(set(group.values()))
        tested += split.test
    assert sorted(tested) == sorted(group)


@given(data=st.data(), cases=grouped_cases(mixed=True))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_grouped_splits_do_not_depend_on_the_order(data: st.DataObject, cases: list[Case]) -> None:
    """Breaks if the order of the cases decides where a group goes."""
    folds = [replace(case, fold=int(case.group[1:]) % 3) for case in cases]
    order = data.draw(st.permutations(folds))
    for splitter in (HoldoutSplit(seed=1), KFoldSplit(3, 1), OfficialSplit(1)):
        assert splitter(order) == splitter(folds)


def test_golden_folds() -> None:
    """Breaks if another machine, Python or version deals the folds otherwise."""
    cases = [replace(case, group="twins" if case.name[-2] == "1" else "") for case in TEN]
    split = KFoldSplit(folds=3, fold=1)(cases)
    assert split.test == ("benign (1)", "benign (2)", "malignant (1)", "malignant (2)")
    assert split.description == (
        "fold 1 of 3 (from 0), stratified by class, 1 group kept together, seed 0, "
        "val 10 % of the rest"
    )


def test_the_fold_that_tests_may_choose_the_epoch() -> None:
    """Breaks if val=0 trains on less than the other folds, or does not say how the epoch is chosen.

    It is U-Bench's protocol.
    """
    cases = [replace(case, fold=number % 3) for number, case in enumerate(TEN)]
    for splitter in (KFoldSplit(folds=3, val=0), OfficialSplit(val=0)):
        split = splitter(cases)
        assert split.val == split.test
        assert split == splitter(cases[::-1])
        assert {*split.train, *split.test} == {case.name for case in TEN}
        assert len(split.train) + len(split.test) == 10
        assert "val the same fold" in split.description
        assert "on the test cases themselves" in split.selection


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"folds": 1}, r"split\.folds=1"),
        ({"fold": 5}, r"split\.fold=5 must be 0 to 4"),
        ({"fold": -1}, r"split\.fold=-1"),
        ({"val": -0.1}, r"split\.val=-0\.1"),
        ({"val": 1.5}, r"split\.val=1\.5"),
    ],
)
def test_bad_folds_are_refused(setting: dict, message: str) -> None:
    """Breaks if a fold that does not exist gives an empty test part, or the last one."""
    with pytest.raises(UserError, match=message):
        KFoldSplit(**setting)


def test_official_folds() -> None:
    """Breaks if the dataset's folds are not followed, or patients cross the validation part."""
    cases = [
        Case(f"p{n // 3} image {n}", label="benign", group=f"p{n // 3}", fold=n // 15)
        for n in range(45)
    ]
    for fold in range(3):
        split = OfficialSplit(fold)(cases)
        assert set(split.test) == {case.name for case in cases if case.fold == fold}
        assert not {name.split()[0] for name in split.train} & {n.split()[0] for n in split.val}
        assert sizes(split) == [27, 3, 15]
    with pytest.raises(UserError, match=r"split\.fold=3 must be one of the .*: 0, 1, 2"):
        OfficialSplit(3)(cases)
    with pytest.raises(UserError, match="no official folds; use split=holdout or split=kfold"):
        OfficialSplit()(TEN)
    with pytest.raises(UserError, match=r"1 cases have no official fold: p0 image 0"):
        OfficialSplit()([replace(cases[0], fold=None), *cases[1:]])


def test_files_hold_out_whole_groups(tmp_path: Path) -> None:
    """Breaks if the tenth that chooses the epoch has twins in what is left of training."""
    cases = [replace(case, group=f"g{n // 2}") for n, case in enumerate(make_cases(benign=40))]
    names, group = [case.name for case in cases], group_of(cases)
    parts = (names[:30], names[30:])
    lists = [write_list(tmp_path / f"{n}.txt", part) for n, part in enumerate(parts)]
    split = FilesSplit(*lists)(cases)
    assert len(split.val) in (2, 4)
    assert not {group[name] for name in split.train} & {group[name] for name in split.val}


def test_released_protocol_is_not_grouped() -> None:
    """Breaks if the authors' protocol is silently improved: then it reproduces nothing."""
    grouped = [replace(case, group="one") for case in TEN]
    assert ReleasedSplit()(grouped) == ReleasedSplit()(TEN)


def test_fingerprint() -> None:
    """Breaks if it ignores a moved case, depends on order or wording, or differs by machine."""
    # printf 'test,d\ntrain,a\ntrain,b\nval,c' | sha256sum
    split = Split(("a", "b"), ("c",), ("d",), "x")
    assert split.fingerprint == "3ed58f1c7972"
    assert Split(("b", "a"), ("c",), ("d",), "y").fingerprint == split.fingerprint
    assert Split(("a", "c"), ("b",), ("d",), "x").fingerprint != split.fingerprint
    assert Split(("a", "b"), ("c",), ("d", "c"), "x").fingerprint != split.fingerprint
