"""A command of `state-rag data` as a user calls it, and the one that it says comes next."""

import argparse
import re
import shlex

from state_rag.datasets.commands import add_commands


def call(*words):
    parser = argparse.ArgumentParser(prog="state-rag")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(word) for word in words])
    args.run(args)


def next_command(capsys):
    output = capsys.readouterr().out
    found = re.search(r"^next: (.*)$", output, re.M)
    assert found, output
    return shlex.split(found[1])
