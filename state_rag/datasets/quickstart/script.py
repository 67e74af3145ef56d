"""The commands that split, train, predict and evaluate on an h5ad file, as a shell script.

The findings are its comments, each with how sure it is and the option that overrules it; the commands below them can be
copied, or the whole run. Where something cannot be guessed, a word in capitals stands in its place and the line above
says which option names it.
"""

import re
import shlex
import textwrap
from pathlib import Path

from state_rag.datasets.columns import BATCH_COLUMNS, CELL_TYPE_COLUMNS, CONTROLS, PERTURBATION_COLUMNS
from state_rag.datasets.command_words import FULL_SIZE, REPLOGLE
from state_rag.datasets.effects_tables import LABELS
from state_rag.datasets.quickstart.plan import Plan
from state_rag.datasets.splitting.perturbation_splits import SHARE
from state_rag.embeddings.find import PUBLISHED_FILE, find_embeddings
from state_rag.embeddings.readers import read_embeddings
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.names.combinations import is_made
from state_rag.settings import RagSettings

PLACEHOLDERS = {
    "pert_col": "PERTURBATION_COLUMN",
    "control": "CONTROL",
    "held_out": "LINE",
    "embeddings": f"PATH_TO/{PUBLISHED_FILE}",
    "texts": "SUMMARIES.json",
}
"""What stands in a command for what cannot be guessed."""

ADDED_LINE, ADDED_BATCH = "cell_line", "gem_group"
"""Columns that `data prepare` adds where there is none."""

_WIDTH = 118
_SMALL_TABLE = 64 << 20  # bytes of an embedding file that is read to count what it knows


def script(found: Plan, embeddings: str | None = None) -> str:
    """Return findings and commands of a plan, as a shell script.

    Parameters
    ----------
    found
        What `plan` returned.
    embeddings
        A file of embeddings; without it one is looked for beside the data and in the usual places.

    Raises
    ------
    StateRagError
        If the file of embeddings that was named is not there or cannot be read.
    """
    if found.effects:
        commands = _commands_for_effects(found, embeddings)
        lines = ["#!/bin/sh -e", *_findings_of_effects(found), "", *commands]
        return "\n".join(part for line in lines for part in _wrapped(line)) + "\n"
    commands = _commands(found, embeddings)  # first, since it adds remarks on the embeddings to the findings
    lines = ["#!/bin/sh -e", *_findings(found), "", *commands]
    return "\n".join(part for line in lines for part in _wrapped(line)) + "\n"


def _wrapped(line: str) -> list[str]:
    """Return a long comment as several lines, and one that holds a line break, as a name may, as comments only."""
    if line.startswith("#"):
        line = " ".join(line.splitlines())
    if not line.startswith("# ") or len(line) <= _WIDTH:
        return [line]
    start = re.match(r"# (?:\d\. |NOTE: )?", line)
    return textwrap.wrap(line, _WIDTH, subsequent_indent="#" + " " * (start.end() - 1 if start else 1))


def _findings(found: Plan) -> list[str]:
    look = found.look
    lines = [f"# {look.path}: {look.n_cells:,} cells x {look.n_genes:,} genes, {_size(look.size)}"]
    parts = [
        ("perturbation", found.perturbation, "--pert-col"),
        ("control", found.control, "--control"),
        ("cell line", found.line, "--cell-type-key"),
        ("batch", found.batch, "--batch-col"),
    ]
    stands_in = "step 1 adds one" if found.prepare else "the cell line stands in"
    width = max(12, *(len(guess.value or "-") for _, guess, _ in parts))
    for what, guess, flag in parts:
        lines.append(f"# {what:<13} {guess.value or '-':<{width}}  {guess.sure:<9}  {guess.why or flag}".rstrip())
        for name, why in guess.rejected:
            lines.append(f"# {'':<13} {'':<{width}}             not {name}: {why}")
        if guess.value is None and what == "cell line":
            lines.append(f"# {'':<13} {'':<{width}}             taken for one cell line; else name it with {flag}")
        elif guess.value is None and what == "batch":
            lines.append(f"# {'':<13} {'':<{width}}             {stands_in}; else name it with {flag}")
        elif guess.value is None:
            lines.append(f"# {'':<13} {'':<{width}}             name it with {flag}")
            if what == "perturbation":
                lines.append(f"# {'':<13} {'':<{width}}             columns: {listing(look.columns, 12)}")
    kinds = {"genes": "genes", "ensembl": "Ensembl ids", "other": "something else than genes"}
    lines.append(f"# {'named after':<13} {kinds[found.names[0]]}; {found.names[1]}")
    for name, values in look.values.items():
        where = "X" if name == "X" else f"obsm['{name}'], {look.spaces.get(name, 0):,} genes"
        lines.append(f"# {'values':<13} {where}: {values.words}")
    made = ", which step 1 makes" if "X_hvg" not in look.values else ""
    trained = f"obsm['{found.embed_key}']{made}" if found.embed_key else f"X, all {look.n_genes:,} genes"
    other = [name for name in look.spaces if name != found.embed_key]
    aside = f"; not {listing(other)}: no genes" if other else ""
    lines.append(f"# {'trained on':<13} {trained}{aside}")
    lines += [f"# NOTE: {remark}" for remark in found.remarks]
    lines.append("# Wrong? Say it with --pert-col, --control, --cell-type-key, --batch-col, --held-out, --embeddings.")
    return lines


def _commands(found: Plan, embeddings: str | None) -> list[str]:
    look = found.look
    pert = found.perturbation.value or PLACEHOLDERS["pert_col"]
    control = found.control.value or PLACEHOLDERS["control"]
    line = found.line.value or ADDED_LINE
    held_out = found.held_out or PLACEHOLDERS["held_out"]
    batch = found.batch.value or (line if not found.prepare else ADDED_BATCH)
    data = look.path
    steps: list[str] = []
    number = iter(range(1, 10))
    if found.prepare:
        data = Path(f"{look.path.stem}.prepared.h5ad")
        steps += [
            f"# {next(number)}. A copy that STATE can read: {'; '.join(found.prepare)}.",
            _join(
                f"state-rag data prepare {_word(look.path)} -o {_word(data)}",
                f"--pert-col {_word(pert)} --control {_word(control)}",
                f"--cell-type-key {_word(line)}" if found.line.value else f"--one-line {_word(held_out)}",
                f"--batch-col {_word(batch)}" if found.batch.value else "",
            ),
            "",
        ]
    split = f"split_{'perturbations' if found.single_line else re.sub(r'[^A-Za-z0-9_-]+', '_', held_out)}.toml"
    lines: list[str] = look.columns[line].labels.tolist() if line in look.columns else []
    if found.single_line:
        about = (
            f"Hold out perturbations, since there is one cell line: {SHARE:.0%} are the test, 10% validate, the others "
            "train (all in turn: --folds 5)."
        )
        what = f"--held-out-perturbations {SHARE:g} -o {split}"
    else:
        about = (
            f"Hold out {held_out}, all but {found.few_shot:.0%} of its perturbations "
            f"(any other with --held-out: {listing([one for one in lines if one != held_out], 8)}; perturbations in "
            f"every line: --held-out-perturbations {SHARE:g})."
        )
        what = f"--held-out {_word(held_out)} --few-shot {found.few_shot:g} -o {split}"
    usual = _found_without_saying(found, pert, line, batch, control)
    columns = "" if usual["pert_col"] else f" --pert-col {_word(pert)}"
    steps += [
        f"# {next(number)}. {about}",
        _join(
            f"state-rag data split {_word(data)}",
            what,
            f"{columns}{'' if usual['cell_type'] else f' --cell-type-key {_word(line)}'}"
            f"{'' if usual['control'] else f' --control {_word(control)}'}".strip(),
        ),
        _join(
            f"state-rag data check {split}{'' if found.embed_key else ' --embed-key null'}",
            f"{columns}{'' if usual['cell_type'] else f' --cell-type-key {_word(line)}'}"
            f"{'' if usual['batch'] else f' --batch-col {_word(batch)}'}"
            f"{'' if usual['control'] else f' --control-pert {_word(control)}'}".strip(),
        ),
        "",
    ]
    source, known, making = _embeddings(found, embeddings, data, pert)
    if making:
        steps += [f"# {next(number)}. {making[0]}", *making[1:], ""]
    fewer = "" if known is None or known > RagSettings.topk_rag + 1 else f" training.topk_rag={max(known // 3, 1)}"
    chosen = {
        "pert_col": pert,
        "cell_type_key": line,
        "batch_col": batch,
        "control_pert": control,
        "embed_key": found.embed_key,
        "output_space": "gene" if found.embed_key else "all",
    }
    kwargs = " ".join(
        _word(f"data.kwargs.{key}={hydra_value(value)}") for key, value in chosen.items() if value != REPLOGLE[key]
    )
    train = _join(
        f"state tx train rag=ptrag data=replogle data.kwargs.toml_config_path={split}",
        kwargs,
        f"training.genept_path={_word(source)}{fewer}",
        "use_wandb=false output_dir=runs name=ptrag",
    )
    fit = _join(
        f"state-rag evidence fit {split} -o runs/evidence --embeddings {_word(source)}",
        f"{columns}{'' if usual['cell_type'] else f' --cell-type-key {_word(line)}'}"
        f"{'' if usual['batch'] else f' --batch-col {_word(batch)}'}"
        f"{'' if usual['control'] else f' --control-pert {_word(control)}'}"
        f"{'' if found.embed_key else ' --embed-key null --output-space all'}".strip(),
    )
    steps += [
        f"# {next(number)}. The quick way in, minutes and no network: predict from what similar perturbations did.",
        fit,
        "state tx predict --output-dir runs/evidence --predict-only",
        "state-rag evaluate runs/evidence",
        "",
        f"# {next(number)}. Train PT-RAG (training.rag=true in place of rag=ptrag: as published; rag=genept: no "
        "retrieval).",
        f"#    {FULL_SIZE}",
        train,
        "",
        f"# {next(number)}. Predict the held-out perturbations.",
        "state tx predict --output-dir runs/ptrag --predict-only",
        "",
        f"# {next(number)}. Metrics beside naive baselines, then the same with pictures: report/index.html.",
        "state-rag evaluate runs/ptrag",
        "state-rag report runs/ptrag runs/evidence -o report",
    ]
    return steps


def _findings_of_effects(found: Plan) -> list[str]:
    look = found.look
    perturbations, contexts = (look.columns[name].labels.tolist() for name in LABELS)
    lines = [
        f"# {look.path}: a table of effects, {look.n_cells:,} conditions (a row each) x {look.n_genes:,} genes, "
        f"{_size(look.size)}",
        f"# {LABELS[0]:<13} {len(perturbations):,}: {listing(perturbations)}",
        f"# {LABELS[1]:<13} {len(contexts):,}: {listing(contexts)}",
    ]
    if "X" in look.values and look.values["X"].kind != "scaled":
        lines.append(
            f"# NOTE: X is {look.values['X'].words}: no value is below zero, and effects have both signs. Put the "
            "differences to controls (or log fold changes, or other signed scores) there."
        )
    lines += [f"# NOTE: {remark}" for remark in found.remarks]
    lines.append(
        "# There are no cells, so there is nothing to split and no network to train: the evidence engine is fitted on "
        "the table. It predicts effects, not cells."
    )
    return lines


def _commands_for_effects(found: Plan, embeddings: str | None) -> list[str]:
    data = found.look.path
    source, _, making = _embeddings(found, embeddings, data, LABELS[0])
    number = iter(range(1, 10))
    steps = [f"# {next(number)}. {making[0]}", *making[1:], ""] if making else []
    contexts = found.look.columns[LABELS[1]]
    context = found.held_out or str(contexts.labels[contexts.counts.argmin()])  # where least was measured
    return [
        *steps,
        f"# {next(number)}. Fit: minutes, no network. Without --embeddings it knows perturbations only by what they "
        "did in other contexts.",
        f"state-rag evidence fit {_word(data)} -o runs/evidence --embeddings {_word(source)}",
        "",
        f"# {next(number)}. Effects of all perturbations that are known and were not measured in {context}, each with "
        "how far to trust it (named ones: --perturbations A,B).",
        f"state-rag evidence predict runs/evidence --context {_word(context)} -o predicted.h5ad",
        "",
        f"# {next(number)}. Which to measure there next.",
        f"state-rag design runs/evidence --context {_word(context)} --budget 10",
    ]


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 0.1):,.1f} MB"


def _found_without_saying(found: Plan, pert: str, line: str, batch: str, control: str) -> dict[str, bool]:
    """Tell what the other commands find by themselves: a usual name, and no other usual name that is there too."""
    there = {*found.look.columns, *found.look.passed_over, *(("cell_line",) if found.line.value is None else ())}

    def only(name: str, usual: tuple[str, ...]) -> bool:
        return [one for one in usual if one in there] == [name]

    labels: list[str] = found.look.columns[pert].labels.tolist() if pert in found.look.columns else []
    return {
        "pert_col": only(pert, PERTURBATION_COLUMNS),
        "cell_type": only(line, CELL_TYPE_COLUMNS),
        "batch": only(batch, BATCH_COLUMNS),
        "control": [one for one in labels if one in CONTROLS] == [control],
    }


def _embeddings(found: Plan, given: str | None, data: Path, pert: str) -> tuple[str, int | None, list[str]]:
    """Return the embedding file to train with, how many perturbations it knows (if told), and commands that make it."""
    beside = found.look.path.with_name("embeddings.safetensors")
    path: Path | None = None
    if given is not None:
        path = find_embeddings(given)
    elif beside.is_file():
        path = beside
    else:
        try:
            path = find_embeddings(None)
        except StateRagError:
            path = None
    made = "embeddings.safetensors"
    columns = "" if pert == "gene" else f" --pert-col {_word(pert)}"
    if path is not None:
        known = _known(found, path, asked_for=given is not None)
        if path.suffix == ".safetensors":
            return str(path), known, []
        return (
            made,
            known,
            [
                f"Keep the perturbations of this file from {path.name}.",
                f"state-rag embeddings convert {_word(path)} --h5ad {_word(data)}{columns} -o {made}",
            ],
        )
    known = found.n_perturbations or None
    if found.names[0] == "genes":
        return (
            made,
            known,
            [
                f"Embeddings of the genes. {PLACEHOLDERS['embeddings']}: where you keep GenePT's file; `state-rag "
                "data fetch genept` downloads it (574 MB) and says where (--embeddings names it here).",
                f"state-rag embeddings convert {PLACEHOLDERS['embeddings']} --h5ad {_word(data)}{columns} -o {made}",
            ],
        )
    why = "Ensembl ids, and GenePT knows symbols" if found.names[0] == "ensembl" else "no genes, so GenePT has none"
    return (
        made,
        known,
        [
            f"Embeddings of the perturbations ({why}). {PLACEHOLDERS['texts']}: name -> text on each; or give vectors "
            "of your own with --embeddings (.csv, .npz, ...).",
            f"state-rag embeddings build {PLACEHOLDERS['texts']} -o {made}",
        ],
    )


def _known(found: Plan, path: Path, asked_for: bool) -> int | None:
    """Return how many of the perturbations a small embedding file knows; a large one is not read."""
    labels = found.look.columns.get(found.perturbation.value or "")
    if labels is None or path.stat().st_size > _SMALL_TABLE:
        return found.n_perturbations or None
    names = [label for label in labels.labels.tolist() if label != found.control.value]
    try:
        table = read_embeddings(path, progress=False, zeros="drop")
    except StateRagError as error:
        if asked_for:
            raise
        found.remarks.append(f"The embeddings found cannot be used: {error}")
        return None
    lacking = [name for name in names if name not in table and not is_made(name, table)]
    known = len(names) - len(lacking)
    if lacking:
        found.remarks.append(
            f"{path.name} has no embedding for {len(lacking)} of {len(names)} perturbations ({listing(lacking)}); they "
            "are left out of training and prediction."
        )
    return known


def hydra_value(value: str | None) -> str:
    """Return a text in the grammar of Hydra's overrides, so that it stays this very text.

    Examples
    --------
    >>> hydra_value("non-targeting"), hydra_value("0"), hydra_value("T cell, naive"), hydra_value(None)
    ('non-targeting', "'0'", "'T cell, naive'", 'null')
    """
    if value is None:
        return "null"
    plain = re.fullmatch(r"[A-Za-z_][\w/.-]*", value)
    if plain and value.lower() not in ("true", "false", "null", "nan", "inf"):
        return value
    quoted = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + end[2].replace("'", "\\'"), value)
    return "'" + re.sub(r"(\\*)\$\{", r"\1\1\\${", quoted) + "'"


def _word(text: object) -> str:
    """Return a shell word, in double quotes where it holds single ones and nothing that they would change."""
    word = str(text)
    return f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word)


def _join(*parts: str) -> str:
    """Return the parts of a command on lines of their own."""
    return " \\\n    ".join(part for part in parts if part)
