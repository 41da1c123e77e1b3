"""What ``--help`` says: of this package its verbs, of a verb its groups and settings.

Nothing is listed here: verbs are the files that say so in their first line, groups the folders of
configs, and what a group or a setting is stands behind it in the YAML of the verb.
"""

import re
import shutil
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from anatosegnet.config.composition import config_directory, yaml_of

USAGE = re.compile(r'"""``python -m anatosegnet\.(\w+) ?([^`]*)``: (.+)\.(?:"""|$)')
GROUP = re.compile(r"^ *- ([\w/]+): [^#\n]*# *(.+)$", re.MULTILINE)
INDENT = " " * 17
SETTING = re.compile(r"^\w+:.*$", re.MULTILINE)


@cache
def verbs() -> dict[str, tuple[str, str]]:
    """What each verb is given, and what it does, from the first lines of the files."""
    found = {}
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *here.glob("*/__main__.py")]):
        with path.open(encoding="utf-8") as file:
            usage = USAGE.match(file.readline())
        if usage:
            found[usage[1]] = usage[2], usage[3]
    return found


def list_of_verbs() -> str:
    """A line for each verb."""
    rows = [(f"{verb} {given}".rstrip(), what) for verb, (given, what) in verbs().items()]
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        [
            "anatosegnet VERB [group=choice …] [key=value …]   or   python -m anatosegnet.VERB …",
            "",
            *(f"  {command:{width}}   {what}" for command, what in rows),
            "",
            "anatosegnet VERB --help lists the groups and settings of a verb.",
        ]
    )


def help_of(verb: str, *, _root_: DictConfig) -> str:
    """The help of a verb, for Hydra's template.

    Args:
        verb: Its name, which is that of its YAML.
        _root_: All that Hydra composed.
    """
    given, what = verbs()[verb]
    lines = [f"python -m anatosegnet.{verb} {given}".rstrip() + f": {what}", ""]
    if groups := groups_of(verb, _root_.hydra.runtime.choices):
        lines += ["Groups (group=choice)", ""]
        width = min(shutil.get_terminal_size().columns, 100)
        for name, (about, choices) in groups.items():
            lines.append(f"  {name:14} {about}".rstrip())
            lines += textwrap.wrap(
                ", ".join(choices), width, initial_indent=INDENT, subsequent_indent=INDENT
            )
        lines.append("")
    lines += ["Settings (key=value)", "", *(f"  {line}" for line in settings(verb)), ""]
    lines.append("Those of the groups too: --cfg job; with values filled in: --cfg job --resolve")
    lines.append(
        "A folder of your own groups: --config-dir DIR; other verbs: python -m anatosegnet"
    )
    return "\n".join(lines).replace("$", "$$")  # Hydra puts words of its own in the place of $NAME


def groups_of(verb: str, chosen: Mapping[str, str | None]) -> dict[str, tuple[str, list[str]]]:
    """The groups of a verb and a user's own: what each is, and what there is to choose.

    Args:
        verb: Its name.
        chosen: The choice in each group; lists of choices, and null, need not be there.
    """
    about: dict[str, str] = {}
    for place in ("train", *reversed(lineage(verb))):
        about |= described(config_directory() / f"{place}.yaml")
    for name, choice in chosen.items():  # groups inside of groups
        inner = described(config_directory() / name / f"{choice}.yaml")
        about |= {f"{name}/{group}": text for group, text in inner.items()}
    used = {*chosen, *(name for place in lineage(verb) for name in choices_in(place))}
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None  # it asks for the help
    found = {}
    for name in sorted(hydra.list_all_config_groups()):
        own = not (config_directory() / name).is_dir()
        if (own or name in used) and not f"{name}/".startswith("hydra/"):
            options = sorted(hydra.config_loader.get_group_options(name))
            found[name] = about.get(name, ""), [o for o in options if not o.startswith("_")]
    return found


def lineage(verb: str) -> list[str]:
    """A verb, and those whose YAML it builds on."""
    below = [entry for entry in yaml_of(verb)["defaults"] if isinstance(entry, str)]
    return [verb, *(name for base in below if base != "_self_" for name in lineage(base))]


def choices_in(verb: str) -> list[str]:
    """The groups that the YAML of a verb chooses from."""
    entries = yaml_of(verb)["defaults"]
    return [str(group) for entry in entries if isinstance(entry, dict) for group in entry]


def described(path: Path) -> dict[str, str]:
    """What stands behind each group that a YAML chooses from."""
    return dict(GROUP.findall(path.read_text("utf-8"))) if path.is_file() else {}


def settings(verb: str) -> list[str]:
    """The settings outside the groups, as they stand in the YAML of a verb and of those below."""
    found = {}
    for place in reversed(lineage(verb)):
        for line in SETTING.findall((config_directory() / f"{place}.yaml").read_text("utf-8")):
            found[line.partition(":")[0]] = line
    return [line for name, line in found.items() if name not in ("defaults", "hydra")]
