"""The table of docs/models.md, from that of ``python -m anatosegnet.models csv=FILE``.

python scripts/network_table.py FILE
"""

import sys

from anatosegnet.files.rows import read_rows

HEAD = """\
| `model=` | network | parameters | GMAC | train/s | infer/s | weights | IoU | F1 |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print the rows as markdown; numbers that were not measured stay empty."""
    print(HEAD)
    for row in read_rows(sys.argv[1])[1]:
        gmac, training, inference = (
            f"{float(row[key]):.2f}" if row[key] else ""
            for key in ("gmac", "training", "inference")
        )
        parameters = f"{int(row['parameters']):,}" if row["parameters"] else row["remark"]
        weights = {"True": "ImageNet", "False": "random"}.get(row["pretrained"], "")
        cells = [f"`{row['name']}`", row["source"], parameters, gmac, training, inference, weights]
        print("| " + " | ".join([*cells, row["iou"], row["f1"]]) + " |")


if __name__ == "__main__":
    main()
