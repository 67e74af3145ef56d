"""What is said about the flags of `training.`: for the command line, and as a table for the documentation.

All of it is made from their declarations in `state_rag.settings` and from the presets in ``configs/rag``.
"""

import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from state_rag.errors import StateRagError
from state_rag.flag import UNKNOWN, Flag, said
from state_rag.names import suggest
from state_rag.settings import CONTRADICTIONS, FLAGS

PACKAGE = Path(__file__).resolve().parent

INTRODUCTION = """\
Flags of `state tx train`, as training.NAME=VALUE. One that is not set follows the chosen preset (rag=PRESET, one of
{presets}); an explicit training.NAME=VALUE wins over the preset.
"""


def config_dir() -> Path:
    """Return the folder of our Hydra groups: inside an installed package, beside it in a checkout."""
    packaged = PACKAGE / "configs"
    return packaged if packaged.is_dir() else PACKAGE.parent / "configs"


def preset_names() -> list[str]:
    """Return the presets that `rag=` takes: the one for no retrieval first, then by name."""
    names = {path.stem for path in (config_dir() / "rag").glob("*.yaml")}
    return ["none", *sorted(names - {"none"})]


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Return the flags that each preset sets, by the preset's name."""
    import yaml

    folder = config_dir() / "rag"
    return {name: _flags_in(yaml.safe_load((folder / f"{name}.yaml").read_text())) for name in preset_names()}


def _flags_in(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in FLAGS}


def default_of(known: Flag) -> str:
    """Return a flag's default on a command line without a preset, as it is spelled there."""
    return f"follows {known.follows}" if known.follows else said(known.default)


def fork_default_of(known: Flag) -> str:
    """Return what the authors' code takes, in brackets what it does always; a dash for what it does not know."""
    if known.fork_always is not UNKNOWN:
        return f"({said(known.fork_always)})"
    return "-" if known.fork is UNKNOWN else said(known.fork)


def needs_of(name: str) -> list[str]:
    """Return what a flag needs to be switched on, one sentence for each contradiction with its absence."""
    return [
        f"needs training.{needs.other}=true: it {needs.does}, and training.{needs.other}=false {needs.without}."
        for needs in CONTRADICTIONS
        if needs.name == name
    ]


def preset_values(name: str) -> dict[str, str]:
    """Return the values that presets give a flag, by preset, where they differ from the default."""
    return {
        preset: _following(values[name])
        for preset, values in presets().items()
        if name in values and _following(values[name]) != said(FLAGS[name].default)
    }


def _following(value: Any) -> str:
    """Return a preset's value as it is spelled, a reference to another flag as `follows NAME`."""
    text = said(value)
    return f"follows {text[len('${training.') : -1]}" if text.startswith("${training.") else text


def help_text(names: Sequence[str] = (), *, width: int = 100) -> str:
    """Return what `state-rag settings` prints.

    Parameters
    ----------
    names
        Flags, with or without ``training.``; none for all of them.
    width
        Columns.

    Raises
    ------
    StateRagError
        For a name that is no flag, with close spellings.
    """
    chosen = [FLAGS[name] for name in _known(names)]
    blocks = ["\n".join(_lines(known, width)) for known in chosen]
    if not names:
        blocks.insert(0, "\n".join(textwrap.wrap(INTRODUCTION.format(presets=", ".join(preset_names())), width)))
    return "\n\n".join(blocks) + "\n"


def _lines(known: Flag, width: int) -> Iterable[str]:
    yield f"training.{known.name}"
    told = [known.help, f"takes {known.takes}; default: {default_of(known)}."]
    given = preset_values(known.name)
    if given:
        told.append("presets: " + ", ".join(f"rag={preset}: {value}" for preset, value in given.items()) + ".")
    for sentence in [*told, *needs_of(known.name)]:
        yield from textwrap.wrap(sentence, width, initial_indent="    ", subsequent_indent="      ")


def markdown_table(names: Sequence[str] = ()) -> str:
    """Return the flags as a table in Markdown: name, the authors' default, ours, allowed values, and meaning.

    Parameters
    ----------
    names
        As in `help_text`.

    Raises
    ------
    StateRagError
        For a name that is no flag.
    """
    rows = [
        ("`training.` flag", "fork's default", "default", "takes", "meaning"),
        ("---",) * 5,
        *(_row(FLAGS[name]) for name in _known(names)),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(known: Flag) -> tuple[str, ...]:
    default = f"follows `{known.follows}`" if known.follows else f"`{said(known.default)}`"
    given = preset_values(known.name)
    if given and known.follows is None:
        default += f" ({', '.join(f'`rag={preset}`: {value}' for preset, value in given.items())})"
    needed = [needs.other for needs in CONTRADICTIONS if needs.name == known.name]
    meaning = known.help + (f" Needs {' and '.join(f'`{name}`' for name in needed)}." if needed else "")
    return f"`{known.name}`", fork_default_of(known), default, known.takes, meaning.replace("|", "\\|")


def _known(names: Sequence[str]) -> list[str]:
    """Return the names of flags without ``training.``; all of them for none."""
    asked = [name.removeprefix("training.") for name in names] or list(FLAGS)
    if unknown := [name for name in asked if name not in FLAGS]:
        near = suggest(unknown, FLAGS) or f"; they are {', '.join(FLAGS)}"
        raise StateRagError(f"training.{unknown[0]} is no flag of state-rag{near}. `state-rag settings` lists all.")
    return asked
