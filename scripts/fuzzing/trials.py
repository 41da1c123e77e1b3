"""A trial: what is prepared, what is run on it, and what came of it in a few words."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzzing.attempts import SECRET, attempt, last_lines
from fuzzing.ground import Sandbox

Edit = Callable[[Sandbox], None]
OUTPUTS = {"out", "new", "comparison", "index"}  # what commands of trials name as their output


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Attributes:
        name: Of the trial.
        words: ``tried``, and those columns of ``fuzz.py`` that apply.
        text: The line to show of it.
        seconds: It took so long.
    """

    name: str
    words: tuple[str, ...]
    text: str
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A verb, in a sandbox in which something was prepared.

    Attributes:
        name: What was prepared, and the verb.
        arguments: The verb and its arguments, from the working directory of a sandbox.
        prepare: Makes the sandbox hostile.
        own: The command is the user's own: it may build and write what it says, but where it is
            refused, the working directory must stay empty.
    """

    name: str
    arguments: list[str]
    prepare: Edit
    own: bool = False
    count = 1

    def run(self, ground: Path, seconds: float) -> Iterator[Result]:
        """Try it once.

        Args:
            ground: From `make_ground`.
            seconds: After which it counts as a hang.
        """
        box = Sandbox(ground)
        try:
            self.prepare(box)
            before = box.listing()
            outcome = attempt(self.arguments, box.work, box.limits(seconds))
            harm = []
            if not self.own:
                harm = [*outcome.harm, *box.harm(), *box.tells(SECRET.encode())]
                written = {path.partition("/")[0] for path in box.listing() - before}
                if strange := written - OUTPUTS:
                    harm.append(f"outside: {sorted(strange)} in the working directory")
                if SECRET in outcome.text:
                    harm.append("secret: of the environment, printed")
            elif outcome.verdict == "refused" and box.listing() != before and not failed(box.work):
                harm = [f"left: {sorted(box.listing() - before)[:5]}"]
        finally:
            box.remove()
        words = {"tried", outcome.verdict, *(line.partition(":")[0] for line in harm)}
        if "ANATOSEGNET_DEBUG=1 shows where" in outcome.text:
            words.add("unforeseen")
        text = " | ".join([*harm, last_lines(outcome.text)])[:800]
        yield Result(self.name, tuple(sorted(words)), text, outcome.seconds)


def failed(work: Path) -> bool:
    """Whether a run began, and says itself that it failed, as when its loss exploded."""
    summary = work / "new" / "summary.json"
    return summary.is_file() and '"state": "failed"' in summary.read_text()
