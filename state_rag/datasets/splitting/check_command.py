"""`state-rag data check`."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.datasets.command_words import FULL_SIZE, REPLOGLE, add_data_options, given_options, print_next, quote
from state_rag.settings import RagSettings

if TYPE_CHECKING:
    from state_rag.datasets.splitting.split_check import SplitSummary


def add_check(commands: Any) -> None:
    """Add `data check`."""
    parser = commands.add_parser("check", help="check a split against its data and count its cells")
    parser.add_argument("toml", metavar="TOML", help="split file")
    add_data_options(parser)
    parser.add_argument("--set-size", type=int, default=64, metavar="N", help="cells of a set (default: 64)")
    parser.add_argument(
        "--evidence",
        action="store_true",
        help="check for `evidence fit` alone: zarr stores will do, and a line's controls in any of the files",
    )
    parser.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> None:
    """Check a split and print its counts."""
    from state_rag.datasets.formats.in_files import told_format
    from state_rag.datasets.splitting.split_check import check_split, find_names
    from state_rag.datasets.splitting.split_questions import questions, told
    from state_rag.datasets.treated_labels import TreatmentColumns, count_labels, treatment_words
    from state_rag.datasets.untold_treatments import untold_columns, untold_labels

    names = find_names(
        args.toml,
        pert_col=args.pert_col,
        cell_type_key=args.cell_type_key,
        batch_col=args.batch_col,
        control_pert=args.control_pert,
    )
    embed_key = None if args.embed_key == "null" else args.embed_key
    summary = check_split(args.toml, **names, embed_key=embed_key, upstream=not args.evidence)  # type: ignore[arg-type]
    for path in summary.files:
        print(f"data    {path}")
    for line in told_format(summary.files[0], args.pert_col):
        print(f"format  {line}")
    print(f"lines   {', '.join(summary.cell_types)}")
    for part, perturbations in (
        ("train", summary.train_perturbations),
        ("val", summary.val_perturbations),
        ("test", summary.test_perturbations),
    ):
        print(f"{part:<8}{summary.cells[part]:,} perturbed cells of {len(perturbations):,} perturbations")
    print(f"control {summary.cells['control']:,} cells")
    for line in told(questions(summary.conditions, names["control_pert"])):
        print(f"asks    {line}")
    treatment = TreatmentColumns(args.mode_col, args.dose_col, args.time_col)
    if treatment:
        counts = count_labels(
            summary.files, names["pert_col"], names["cell_type_key"], names["control_pert"], treatment
        )
        for line in treatment_words(counts):
            print(line)
    columns = names["pert_col"], names["cell_type_key"], names["control_pert"]
    untold = [f"{path}: {one}" for path in summary.files[:1] for one in untold_columns(path, *columns, treatment)]
    untold += untold_labels(summary.files[0], names["pert_col"], treatment)
    wrong = print_values(summary, names, args, untold)
    if wrong:
        raise SystemExit(1)
    chosen = {**names, "embed_key": args.embed_key, "output_space": args.output_space}
    changed = "".join(
        f" data.kwargs.{key}={shlex.quote(value)}" for key, value in chosen.items() if value != REPLOGLE[key]
    )
    toml_path = shlex.quote(str(Path(args.toml).absolute()))
    fit = f"state-rag evidence fit {toml_path} -o runs/evidence{given_options(**chosen)}"
    if treatment or args.evidence:  # networks know no modes
        given = treatment.to_data().items()
        options = "".join(f" --{key.replace('_', '-')} {shlex.quote(value)}" for key, value in given)
        print_next(f"{fit}{options}")
        return
    embeddings = summary.files[0].absolute().with_name("embeddings.safetensors")
    table = quote(embeddings) if embeddings.is_file() else None
    known = len({*summary.train_perturbations, *summary.val_perturbations, *summary.test_perturbations})
    fewer = f" training.topk_rag={max(known // 3, 1)}" if known <= RagSettings.topk_rag else ""
    print_next(
        f"state tx train rag=ptrag data=replogle data.kwargs.toml_config_path={toml_path}{changed}{fewer}"
        f" training.genept_path={table or 'EMBEDDINGS'} use_wandb=false output_dir=runs name=ptrag"
    )
    print(f"      {FULL_SIZE}")
    print(f"or:   {fit}{f' --embeddings {table}' if table else ''}  (no network)")


def print_values(
    summary: "SplitSummary", names: dict[str, str], args: argparse.Namespace, further: Sequence[str] = ()
) -> bool:
    """Print what the values are and what was noticed, `further` too; return whether results would be wrong."""
    from state_rag.datasets.value_check import check_values

    values = check_values(
        summary,
        pert_col=names["pert_col"],
        control_pert=names["control_pert"],
        cell_type_key=names["cell_type_key"],
        embed_key=None if args.embed_key == "null" else args.embed_key,
        output_space=args.output_space,
        set_size=args.set_size,
    )
    for space in values.identity.spaces.values():
        print(f"values  {space.words}")
    read = f"{values.cells_read:,} of {values.cells:,} cells were read" if values.cells_read < values.cells else ""
    print("what I noticed" + (f" ({read})" if read else ""))
    for finding in values.findings:
        print(f"- {'WRONG: ' if finding.is_wrong else ''}{finding}")
    for text in further:
        print(f"- {text}")
    if not values.findings and not further:
        print("- nothing: genes, scale and values are as they should be")
    return any(finding.is_wrong for finding in values.findings)
