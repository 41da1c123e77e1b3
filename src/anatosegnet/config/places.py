"""Names and paths that others give: what may become part of a path, and what ``~`` means."""

from pathlib import Path

from anatosegnet.console import plain
from anatosegnet.errors import UserError

LONGEST = 200  # bytes of a name; file systems take 255, and suffixes are added


def path_part(name: object, what: str, longest: int = LONGEST) -> str:
    """A name as the name of a file or folder: exactly one part of a path, never a way out.

    Args:
        name: From a config, a table or a file's name.
        what: What it names, for the message, such as ``data.name``.
        longest: Bytes that it may have.

    Raises:
        UserError: It is empty, hidden, too long, or holds a separator or control characters.
    """
    text = str(name)
    if not text.strip() or text.startswith("."):
        reason = "must be a name that does not begin with a dot"
    elif any(letter in "/\\" or ord(letter) < 32 or ord(letter) == 127 for letter in text):
        reason = "names a file or folder, so it must not hold / \\ or control characters"
    elif len(text.encode(errors="surrogateescape")) > longest:
        text, reason = text[:40] + "…", f"is longer than {longest} bytes"
    else:
        return text
    raise UserError(f"{what}={plain(text)!r} {reason}")


def user_path(path: str | Path) -> Path:
    """A path that a user gave, with ``~`` as the home folder.

    Raises:
        UserError: There is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{plain(path)}: there is no home folder for ~ here") from error
