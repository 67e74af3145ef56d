"""Options of STATE's commands that mean nothing for the evidence engine: refused, with what takes their place."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from state_rag.errors import StateRagError

INFER = {
    "tsv": "--perturbations A,B (or a file with a name on a line) says what to predict, --virtual-cells-per-pert how "
    "many cells of each",
    "all_perts": "`state-rag evidence predict {run} -o effects.h5ad` predicts all that is known, as effects; cells of "
    "some: --perturbations",
    "min_cells": "--virtual-cells-per-pert says how many cells of each of --perturbations are predicted",
    "max_cells": "--virtual-cells-per-pert says how many cells of each of --perturbations are predicted",
}
"""Of `tx infer`: what to use instead."""

PREDICT = {
    "pseudobulk": "`state-rag evidence predict {run} -o effects.h5ad` writes mean effects",
    "test_time_finetune": "there is nothing to train; leave it out",
    "count_flops": "there is no network whose operations could be counted; leave it out",
    "max_batches": "there are no batches; leave it out",
}
"""Of `tx predict`."""


def refuse(args: Namespace, instead: Mapping[str, str], run: Path) -> None:
    """Refuse options that a run of the evidence engine has no use for.

    Parameters
    ----------
    args
        The command's arguments; options that the installed STATE lacks are not there.
    instead
        Argument -> what to do instead.
    run
        The run's folder.

    Raises
    ------
    StateRagError
        With each option that was given.
    """
    given = {name: said.format(run=run) for name, said in instead.items() if getattr(args, name, None)}
    if given:
        # options with one answer share it
        flags: dict[str, list[str]] = {}
        for name, said in given.items():
            flags.setdefault(said, []).append(f"--{name.replace('_', '-')}")
        told = "; ".join(f"{', '.join(names)}: {said}" for said, names in flags.items())
        raise StateRagError(f"{run} is a run of the evidence engine, and these options are for networks. {told}.")
