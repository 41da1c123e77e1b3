"""``metrics.csv`` of a run: the scores of its epochs; its one reader."""

from pathlib import Path

from anatosegnet.errors import UserError, reason
from anatosegnet.files.rows import is_finite, number, read_rows


def read_epochs(path: Path) -> dict[int, dict[str, float]]:
    """The scores of each epoch (from 0) by name; what is no finite number is left out.

    An epoch may have several rows, one for training and one for validation, as in a
    ``metrics.csv`` of Lightning. Nothing where the file is not there yet.

    Raises:
        UserError: It cannot be read, or is no such table.
    """
    try:
        rows = read_rows(path, ragged=False)[1]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as scores of epochs ({reason(error)}); put the file back"
        ) from error
    epochs: dict[int, dict[str, float]] = {}
    for row in rows:
        numbers = {name: number(text) for name, text in row.items()}
        scores = {name: value for name, value in numbers.items() if is_finite(value)}
        if "epoch" in scores:
            epochs.setdefault(int(scores.pop("epoch")), {}).update(scores)
    return epochs
