"""Every command in README.md and docs/ says whether it is executed, and names things that exist."""

import re
import shlex

import pytest

from state_rag.cli import build_parser
from tests.docs.blocks import MARKS, ROOT, SMALL, Block, all_blocks, marked_blocks

BLOCKS = all_blocks()
OPERATORS = {"|", "||", "&&", ";", "&", "{", "}", ">", ">>", "<", "do", "done", "for", "then", "fi"}


def simple_commands(line):
    """Split a shell line into the words of its commands."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words, found = [], []
    for word in lexer:
        if word in OPERATORS or set(word) <= set("|&;<>"):
            found.append(words)
            words = []
        else:
            words.append(word)
    return [words for words in [*found, words] if words]


def state_parser():
    from argparse import ArgumentParser

    import state._cli._tx as tx

    parser = ArgumentParser(prog="state")
    commands = parser.add_subparsers(dest="command", required=True)
    tx.add_arguments_tx(commands.add_parser("tx"))
    return parser


def plain(word):
    """Replace what a shell would fill in by a word."""
    return re.sub(r"\$\{?\w+\}?|\$\(.*?\)", "X", word)


def check_presets(overrides):
    """Refuse `group=name` where configs/ has the group but not the name."""
    from omegaconf import OmegaConf  # noqa: F401  Hydra's, so that a missing one is an error here

    configs = ROOT / "configs"
    for override in overrides:
        key, _, value = override.partition("=")
        group = {"rag": "rag", "model": "model", "data": "data", "experiment": "experiment", "sweep": "sweep"}.get(
            key, key if key.startswith("hydra/") else None
        )
        if group is None or not (configs / group).is_dir():
            continue
        for name in value.split(","):
            upstream = {"model": {"state", "state_sm", "state_lg"}, "data": {"perturbation"}}.get(group, set())
            upstream |= {"basic", "joblib", "submitit_local", "submitit_slurm", "ray"} if "launcher" in group else set()
            assert (configs / group / f"{name}.yaml").exists() or name in upstream, f"no preset {key}={name}"


def parsed_by(parser, arguments):
    """Return the parsed arguments; None where they ask for help."""
    try:
        return parser.parse_args(arguments)
    except SystemExit as stopped:
        if stopped.code:
            raise AssertionError(f"not a command: {arguments}") from None
        return None


def check_command(words, compose):
    """Check a command against the parser that would read it."""
    words = [plain(word) for word in words]
    program, *arguments = words
    if program == "state-rag":
        parsed = parsed_by(build_parser(), arguments)
        if parsed and parsed.command == "sweep":
            check_presets([word for word in arguments if "=" in word])
    elif words[:2] == ["state", "tx"]:
        parsed = parsed_by(state_parser(), arguments)
        if parsed and parsed.subcommand == "train" and parsed.hydra_overrides:
            compose(*parsed.hydra_overrides, resolve=False)
    elif program == "python":
        script = next(word for word in arguments if not word.startswith("-"))
        assert arguments[0] == "-m" or (ROOT / script).exists(), f"no file {script}"
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets), f"no such target: {words}"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_says_whether_it_is_executed(block):
    assert block.mark in MARKS, f"{block.place}: put one of these marks on the line before: {', '.join(MARKS)}"


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if not block.mark.startswith("run")], ids=lambda block: block.place
)
def test_a_block_that_is_not_executed_names_commands_flags_and_presets_that_exist(block, compose):
    for line in block.commands():
        for words in simple_commands(line):
            check_command(words, compose)


def test_something_is_executed():
    assert sum(block.mark.startswith("run") for block in BLOCKS) > 10


def test_a_mark_a_fence_and_a_continued_line_are_read(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- run: small -->\n```bash\nstate tx train a=1 \\\n    b=2   # why\n\nls '#'\n```\n\n```bash\nls\n```\n"
    )
    first, second = marked_blocks(page)
    assert first.commands() == ["state tx train a=1 b=2", "ls '#'"]
    assert first.script().splitlines()[0].endswith(SMALL[-1])
    assert first.script().splitlines()[1] == "ls '#'"
    assert (first.mark, second.mark, second.line) == ("run: small", "", 9)


@pytest.mark.parametrize(
    "line",
    [
        "state-rag evaluat runs/ptrag",
        "state-rag evaluate runs/ptrag --no-such-flag",
        "state tx predict --output-dir runs/ptrag --no-such-flag",
        "state tx train rag=no_such_preset",
        "state tx train training.no_such_key=1",
        "state-rag sweep sweep=no_such_preset",
        "state-rag sweep experiment=quick_state hydra/launcher=no_such_launcher",
        "make nothing_of_the_kind",
        "python benchmarks/no_such_program.py",
    ],
)
def test_what_does_not_exist_is_noticed(line, compose):
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with pytest.raises((AssertionError, HydraException, OmegaConfBaseException)):
        check_command(shlex.split(line), compose)


def test_a_pipe_and_a_loop_are_several_commands():
    assert simple_commands("{ a b --c; echo d=e; } | xargs f") == [["a", "b", "--c"], ["echo", "d=e"], ["xargs", "f"]]
    assert Block(ROOT, 1, "", "for x in y; do state tx train; done").commands()
