"""How many images of BUSI's public splits have a near-duplicate on the other side.

python scripts/public_split_leaks.py [DATA_DIR]      default: $ANATOSEGNET_DATA_DIR, else data

DATA_DIR holds BUSI (any layout) and ``splits/busi_{train,val}{1,2,3}.txt``. Prints Markdown.
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path

from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.duplicates import duplicate_groups, find_duplicates
from anatosegnet.data.groups import disagreements, leakage, with_groups
from anatosegnet.data.prepared import find_data
from anatosegnet.data.split import FilesSplit, HoldoutSplit, KFoldSplit, ReleasedSplit, Split
from anatosegnet.errors import UserError


def main(root: Path) -> None:
    """Print what is alike in BUSI, and the table of splits."""
    seconds, wall = time.process_time(), time.perf_counter()
    data = find_data(BUSISource(str(root), include_normal=True), "busi")
    cases = list(data.cases.values())
    pairs = find_duplicates((case.name, data.read(case.name)[0]) for case in cases)
    seconds, wall = time.process_time() - seconds, time.perf_counter() - wall
    print(f"{len(cases)} images read and compared in {seconds:.1f} s of CPU time, {wall:.1f} s\n")

    tumours = [case for case in cases if case.label != "normal"]
    names = {case.name for case in tumours}
    among = [pair for pair in pairs if {pair.id_a, pair.id_b} <= names]
    for title, chosen in (("all", pairs), ("tumour images", among)):
        duplicates = duplicate_groups(chosen)
        sizes = Counter(Counter(duplicates.values()).values())
        print(f"{title}: {len(chosen)} pairs, {len(duplicates)} images, {sizes.total()} groups; "
              f"groups by size {dict(sorted(sizes.items()))}")  # fmt: skip
    print("\nGroups whose classes differ:\n")
    for line in disagreements(cases, duplicate_groups(pairs)):
        print(f"- {line}")

    grouped = with_groups(tumours, duplicate_groups(among))
    print("\n| split | train | validation or test | with a near-duplicate in train | pairs cut |")
    print("|---|---|---|---|---|")
    splits: list[tuple[str, Split]] = []
    for number in (1, 2, 3):
        lists = [root / "splits" / f"busi_{part}{number}.txt" for part in ("train", "val")]
        found = FilesSplit(str(lists[0]), str(lists[1]))(tumours)
        both = Split((*found.train, *found.val), (), found.test, "")
        splits.append((f"public {number}", both))
    splits.append(("`released`, seed 42", ReleasedSplit()(tumours)))
    ungrouped, default = HoldoutSplit()(tumours), HoldoutSplit()(grouped)
    splits += [("`holdout`, ungrouped (`data.duplicates=keep`)", ungrouped)]
    splits += [("`holdout` (default)", default), ("`kfold`, fold 0", KFoldSplit()(grouped))]
    for title, split in splits:
        crossing = leakage(split, grouped).test
        train, test = set(split.train), set(split.test)
        cut = sum((p.id_a in train and p.id_b in test) or (p.id_b in train and p.id_a in test)
                  for p in among)  # fmt: skip
        share = f"{len(crossing)} ({100 * len(crossing) / len(test):.0f} %)"
        print(f"| {title} | {len(train)} | {len(test)} | {share} | {cut} |")


if __name__ == "__main__":
    default = os.environ.get("ANATOSEGNET_DATA_DIR", "data")
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else default))
    except UserError as error:
        sys.exit(f"error: {error}")
