"""``anatosegnet VERB …``, which is ``python -m anatosegnet.VERB …``; alone it lists the verbs."""

import difflib
import importlib
import os
import runpy
import sys
from typing import Any

from anatosegnet.console import say, settle_streams


def main() -> None:
    """Run a verb as a program of its own, or list them.

    The verb runs as ``__main__``, with its own name and arguments: what starts further processes
    (several devices, launchers) starts the same program.
    """
    from anatosegnet.help import list_of_verbs, verbs

    settle_streams()
    program, arguments = sys.argv[0], sys.argv[1:]
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        complete(list(verbs()))
    elif not arguments or arguments[0] in ("-h", "--help"):
        say(list_of_verbs())
    elif (verb := arguments[0]) in verbs():
        sys.argv = [program, *arguments[1:]]
        sys.path.append(os.getcwd())  # as python -m does, but behind all that is installed
        runpy.run_module(f"anatosegnet.{verb}", run_name="__main__", alter_sys=True)
    else:
        near = difflib.get_close_matches(verb, verbs(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(verbs())}"
        say(f"error: there is no verb {verb}; {hint}", error=True)
        sys.exit(2)


def complete(known: list[str]) -> None:
    """Hydra's completion for shells, which knows no verbs: the first word is one."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if "COMP_LINE" in os.environ and (len(words) < 2 or (len(words) == 2 and line[-1] != " ")):
        say(" ".join(known))
        return
    verb = words[1] if len(words) > 1 and words[1] in known else "train"
    os.environ["COMP_LINE"] = line.replace(f" {verb}", "", 1)
    program_of(verb).main()


def program_of(verb: str) -> Any:
    """The module of a verb, which may be that of the package that it is about."""
    module = importlib.import_module(f"anatosegnet.{verb}")
    if not hasattr(module, "__path__"):
        return module
    return importlib.import_module(f"{module.__name__}.__main__")


if __name__ == "__main__":
    main()
