"""Directives that write parts of pages from the code, so that they cannot go stale.

| directive | what it writes |
|---|---|
| `{command-help} data split` | the help of `state-rag data split` |
| `{tx-help} predict` | what state-rag adds to the help of `state tx predict` |
| `{settings-table}` | all `training.` flags |
| `{metrics-table}` | the registry of metrics and the glossary of its symbols |
| `{rooms-picture}`, `{rooms-table}` | the packages of `state_rag`, and which of them import which |
| `{public-api}` | the names that `import state_rag` offers |
"""

import argparse
import importlib
import inspect
import os
import re
from collections.abc import Iterator

from docutils import nodes
from rooms import captions, picture, read_arrows
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HELP_WIDTH = "92"


class CommandHelp(SphinxDirective):
    """The help of one `state-rag` command and of the commands below it."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return one literal block for the command, and one for each of its sub-commands."""
        from state_rag.cli import build_parser

        os.environ["COLUMNS"] = HELP_WIDTH
        parser = build_parser()
        for word in self.arguments[0].split():
            parser = _sub_commands(parser)[word]
        return [literal(found.format_help()) for found in _with_those_below(parser)]


def _sub_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _with_those_below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = _sub_commands(parser)
    if not below:
        yield parser
    for found in below.values():
        yield from _with_those_below(found)


class TxHelp(SphinxDirective):
    """The flags that state-rag adds to one of STATE's `tx` commands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a literal block."""
        from state_rag.upstream import arguments

        os.environ["COLUMNS"] = HELP_WIDTH
        name = self.arguments[0]
        parser = argparse.ArgumentParser(prog=f"state tx {name}", add_help=False, usage=argparse.SUPPRESS)
        getattr(arguments, f"add_{name}_arguments")(parser)
        return [literal(parser.format_help().strip() or "(no flags; keys of the configuration only)")]


class SettingsTable(SphinxDirective):
    """Every flag of `training.` with its default and meaning."""

    def run(self) -> list[nodes.Node]:
        """Return the table that `state_rag.settings_help` writes."""
        from state_rag import settings_help

        return self.parse_text_to_nodes(settings_help.markdown_table())


class MetricsTable(SphinxDirective):
    """Every metric of the registry, and what the symbols in the formulas mean."""

    def run(self) -> list[nodes.Node]:
        """Return an overview, one section's worth of definition for each metric, and the glossary."""
        from state_rag.metrics import glossary
        from state_rag.metrics.registry import METRICS

        lines = ["| metric | `--metrics` | better | space | values |", "|---|---|---|---|---|"]
        for metric in METRICS:
            better = "higher" if metric.higher_is_better else "lower"
            paper = " (Table 1)" if metric.in_paper else ""
            space = glossary.SHORT_SPACES[metric.space]
            lines.append(f"| {metric.label}{paper} | `{metric.name}` | {better} | {space} | {metric.values} |")
        lines += ["", glossary.SYMBOLS, "", f"{glossary.SPACES_LINE}.", ""]
        for metric in METRICS:
            arrow = glossary.direction(metric)
            lines += [
                f"`{metric.name}` — {metric.label} {arrow}",
                f": {metric.meaning}",
                "",
                f"  `{metric.formula}`",
                "",
                f"  {metric.values}. Source: {metric.source}.",
                "",
            ]
        return self.parse_text_to_nodes("\n".join(lines))


class RoomsPicture(SphinxDirective):
    """The rooms of the package and the arrows between them, drawn from the table that the tests hold them to."""

    def run(self) -> list[nodes.Node]:
        """Return the picture as SVG."""
        self.env.note_dependency(__file__)
        return [nodes.raw("", f'<div class="rooms">{picture(read_arrows())}</div>', format="html")]


class RoomsTable(SphinxDirective):
    """What each room is for, in the words of its docstring."""

    def run(self) -> list[nodes.Node]:
        """Return a table of room and first line of its docstring."""
        lines = ["| room | what is in it |", "|---|---|"]
        lines += [f"| `{room}` | {text} |" for room, text in captions(read_arrows()).items()]
        return self.parse_text_to_nodes("\n".join(lines))


class PublicApi(SphinxDirective):
    """The names of `state_rag.public`, documented by their docstrings; then classes named in the content."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a section for each module, with `autofunction`, `autoclass` or `autodata` for each name."""
        from state_rag.public import NAMES

        lines = []
        for module, names in NAMES.items():
            shown = {name: place for name, place in names.items() if ":" in place}
            lines += [f"## `{module}`", "", (importlib.import_module(module).__doc__ or "").splitlines()[0], ""]
            for name in shown:
                lines += _documented(f"{module}.{name}", getattr(importlib.import_module(module), name))
        if self.content:
            lines += ["## What they return", ""]
        for place in self.content:
            module, _, name = place.rpartition(".")
            lines += _documented(place, getattr(importlib.import_module(module), name))
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _documented(name: str, value: object) -> list[str]:
    if inspect.isclass(value) and issubclass(value, BaseException):
        kind, options = "autoexception", []
    elif inspect.isclass(value):
        kind, options = "autoclass", [":members:"]
    elif callable(value):
        kind, options = "autofunction", []
    else:
        kind, options = "autodata", [":no-value:"]
    return ["```{eval-rst}", f".. {kind}:: {name}", *(f"   {option}" for option in options), "```", ""]


def mend_docstring(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """End a name in backticks where a letter follows ("`torch.save`d"), as readers of plain text need not."""
    lines[:] = [re.sub(r"(``?[^`]+``?)([A-Za-z]?)", _end_of_name, line) for line in lines]


def _end_of_name(found: re.Match) -> str:
    return f"{found[1]}\\ {found[2]}" if found[2] else found[1]


def literal(text: str) -> nodes.literal_block:
    """Return a block of plain text."""
    return nodes.literal_block(text, text, language="text")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    for name, directive in {
        "command-help": CommandHelp,
        "tx-help": TxHelp,
        "settings-table": SettingsTable,
        "metrics-table": MetricsTable,
        "rooms-picture": RoomsPicture,
        "rooms-table": RoomsTable,
        "public-api": PublicApi,
    }.items():
        app.add_directive(name, directive)
    app.connect("autodoc-process-docstring", mend_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
