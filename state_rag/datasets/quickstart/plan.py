"""From one h5ad file to what the commands that split, train, predict and evaluate on it need to know.

`plan` decides; `script` prints.
"""

import os
from dataclasses import dataclass, field, replace

import numpy as np

from state_rag.datasets.columns import ONE_LINE
from state_rag.datasets.effects_tables import LABELS, is_effects_table
from state_rag.datasets.formats.known import Recognised, matching
from state_rag.datasets.quickstart.first_look import Column, FirstLook, look_at
from state_rag.datasets.quickstart.guesses import (
    Guess,
    guess_batch,
    guess_control,
    guess_line,
    guess_perturbation,
    kind_of_names,
    same_groups,
    structures,
)
from state_rag.datasets.readable import refuse_unreadable
from state_rag.datasets.splitting.perturbation_draws import PAIR_CLASSES, members_of
from state_rag.datasets.treated_labels import TreatmentColumns
from state_rag.datasets.untold_treatments import untold_columns
from state_rag.errors import StateRagError
from state_rag.h5ad import open_h5ad, read_column
from state_rag.names import listing, suggest
from state_rag.names.combinations import doubled


@dataclass
class Plan:
    """What the commands of a file need to know.

    Attributes
    ----------
    look
        The file.
    perturbation, control, line, batch
        The guesses.
    names
        `genes`, `ensembl` or `other`, and why.
    held_out
        The line to hold out, or the only one; None where it is not known.
    single_line
        Whether there is only one line, so that perturbations are held out.
    few_shot
        Fraction of the held-out line's perturbations that train.
    n_perturbations
        Perturbations with cells, the control aside.
    prepare
        Why `data prepare` must come first; empty where it need not.
    embed_key
        Matrix in obsm to train on; None for X.
    remarks
        What the user should know or mend.
    effects
        Whether it is a table of effects, a row a condition, which needs no split; else it holds cells.
    """

    look: FirstLook
    perturbation: Guess
    control: Guess
    line: Guess
    batch: Guess
    names: tuple[str, str]
    held_out: str | None
    single_line: bool
    few_shot: float
    n_perturbations: int
    prepare: list[str]
    embed_key: str | None
    remarks: list[str] = field(default_factory=list)
    effects: bool = False


def plan(
    path: str | os.PathLike[str],
    *,
    pert_col: str | None = None,
    cell_type_col: str | None = None,
    batch_col: str | None = None,
    control: str | None = None,
    held_out: str | None = None,
) -> Plan:
    """Look at an h5ad file and decide what its commands are.

    Parameters
    ----------
    path
        The file.
    pert_col, cell_type_col, batch_col, control, held_out
        What the user says; the rest is guessed.

    Returns
    -------
    Plan
        Findings, for `script`.

    Raises
    ------
    StateRagError
        If it is no h5ad file, or does not hold what was named.
    """
    look = look_at(path)
    for column, flag in ((pert_col, "--pert-col"), (cell_type_col, "--cell-type-key"), (batch_col, "--batch-col")):
        _refuse_unknown(column, [*look.columns, *look.passed_over], flag, f"obs column of {look.path}")
    if {pert_col, cell_type_col, batch_col} <= {None, *LABELS} and (table := _effects(look, control, held_out)):
        return table
    known = _format_of(look) if pert_col is None else None
    perturbation = _of_format(known, known.format.perturbation, look) if known else guess_perturbation(look, pert_col)
    labels = look.columns.get(perturbation.value or "")
    if known and known.format.line in look.columns and cell_type_col is None:
        line = _of_format(known, known.format.line, look)
    else:
        line = guess_line(look, labels, cell_type_col)
    contexts = look.columns.get(line.value or "")
    batch = guess_batch(look, {perturbation.value, line.value}, batch_col)
    if labels is not None:
        _refuse_unknown(control, labels.labels.tolist(), "--control", f"label of obs column {perturbation.value!r}")
        chosen = guess_control(labels, contexts, control)
        if known and known.control is not None and control is None:
            chosen = Guess(known.control, "sure", f"as {known.format.name} has it")
        names = kind_of_names(labels, look)
    else:
        chosen = Guess(control, "given", "") if control else Guess(None, "not found", "first name the perturbations")
        names = ("other", "not known without a column of perturbations")
    if contexts is not None:
        _refuse_unknown(held_out, contexts.labels.tolist(), "--held-out", f"label of obs column {line.value!r}")
    single = contexts is None or len(contexts.labels) == 1
    found = Plan(
        look, perturbation, chosen, line, batch, names,
        held_out=held_out, single_line=single, few_shot=0.3,
        n_perturbations=0, prepare=[], embed_key="X_hvg",
    )  # fmt: skip
    if single:
        found.held_out = held_out or (str(contexts.labels[0]) if contexts is not None else ONE_LINE)
    if labels is not None and chosen.value is not None:
        found.n_perturbations = len(labels.labels) - 1
        _choose_held_out(found, labels, contexts)
        _tell_pairs(found, labels)
        if (smiles := structures(labels, look)) is not None:
            pair = f"adata.obs[[{labels.name!r}, {smiles!r}]]"
            found.remarks.append(
                f"obs column {smiles!r} has the structures. {pair}.drop_duplicates().to_csv('smiles.csv', index=False) "
                "makes of it a source of the evidence engine: evidence fit --source molecules=smiles.csv"
            )
        if line.value is not None and perturbation.value is not None:
            named = perturbation.value, line.value, chosen.value
            found.remarks += [str(one) for one in untold_columns(look.path, *named, TreatmentColumns())]
    _choose_space(found)
    return found


def _format_of(look: FirstLook) -> Recognised | None:
    """Return the published format of a file; None for none, or for several that mean different columns."""
    fits = matching(look.columns, lambda column: look.columns[column].labels.tolist())
    columns = [look.columns[one.format.perturbation] for one in fits]
    return fits[0] if fits and all(same_groups(columns[0], other) for other in columns[1:]) else None


def _of_format(known: Recognised, column: str, look: FirstLook) -> Guess:
    labels = look.columns[column].labels
    return Guess(column, known.sure, f"as {known.format.name} has it; {len(labels)} labels: {listing(labels, 6)}")


def _effects(look: FirstLook, control: str | None, held_out: str | None) -> Plan | None:
    """Return the plan of a table of effects; None for a file of cells."""
    with open_h5ad(look.path) as file:
        if not is_effects_table(file, control):
            return None
        columns = {}
        for name in LABELS:
            labels, codes = read_column(file, name, "")
            columns[name] = Column(name, labels, codes.astype(np.int32), is_text=True)
    perturbations, contexts = (columns[name] for name in LABELS)
    _refuse_unknown(held_out, contexts.labels.tolist(), "--held-out", "label of obs column 'context'")
    none = Guess(None, "sure", "a table of effects has none")
    return Plan(
        replace(look, columns={**look.columns, **columns}),
        Guess(LABELS[0], "sure", ""),
        none,
        Guess(LABELS[1], "sure", ""),
        none,
        kind_of_names(perturbations, look),
        held_out=held_out,
        single_line=len(contexts.labels) == 1,
        few_shot=0.0,
        n_perturbations=len(perturbations.labels),
        prepare=[],
        embed_key=None,
        effects=True,
    )


def _refuse_unknown(given: str | None, known: list[str], flag: str, what: str) -> None:
    if given is not None and given not in known:
        close = suggest([given], known)
        raise StateRagError(f"{flag} {given}: no such {what}{close}. There are: {listing(known, 12)}.")


def _choose_held_out(found: Plan, labels: Column, contexts: Column | None) -> None:
    """Choose the line with most perturbations that are also elsewhere; of those the one with fewest cells."""
    control = labels.labels.tolist().index(found.control.value)
    if contexts is None:
        _tell_too_few(found)
        return
    both = (labels.codes >= 0) & (contexts.codes >= 0)
    table = np.zeros((len(contexts.labels), len(labels.labels)), dtype=np.int64)
    np.add.at(table, (contexts.codes[both], labels.codes[both]), 1)
    has_control = table[:, control] > 0
    perturbed = np.delete(table, control, axis=1)
    shared = ((perturbed > 0) & ((perturbed > 0).sum(axis=0) > 1)).sum(axis=1)
    if not has_control.any():
        return
    lacking = contexts.labels[~has_control & perturbed.any(axis=1)].tolist()
    if lacking:
        found.remarks.append(
            f"No {found.control.value!r} cells in {listing(lacking)}: STATE predicts from the controls of the same "
            f"{found.line.value}, so `data check` will refuse. Leave these cells out of the file, or name another "
            "control."
        )
    if found.held_out is None:
        order = np.lexsort((table.sum(axis=1), -np.where(has_control, shared, -1)))
        found.held_out = str(contexts.labels[order[0]])
        if not found.single_line and shared[order[0]] == 0:
            found.remarks.append(
                f"No perturbation has cells in two labels of {found.line.value}: nothing trained on shows the held-out "
                "perturbations, so only their embeddings can tell the model about them."
            )
    if found.single_line:
        _tell_too_few(found)
        return
    row = contexts.labels.tolist().index(found.held_out)
    _fit_few_shot(found, int((perturbed[row] > 0).sum()))


def _fit_few_shot(found: Plan, in_line: int) -> None:
    """Lower the fraction that trains until validation and test have a perturbation each."""
    if in_line < 2:
        found.remarks.append(
            f"{found.held_out} has {in_line} perturbation{'s' * (in_line != 1)}: a split needs two or more there, for "
            "validation and test. Hold out another with --held-out, or use more data."
        )
    while found.few_shot and in_line - round(found.few_shot * in_line) - max(1, round(0.1 * in_line)) < 1:
        found.few_shot = max(0.0, round(found.few_shot - 0.1, 1))


def _tell_too_few(found: Plan) -> None:
    """Say where a screen of one line has too few perturbations to hold any out."""
    if found.n_perturbations < 3:
        found.remarks.append(
            f"The file has {found.n_perturbations} perturbation{'s' * (found.n_perturbations != 1)} and one cell line: "
            "a split needs three or more, for training, validation and test. Use more data."
        )


def _tell_pairs(found: Plan, labels: Column) -> None:
    """Say which labels perturb two genes at once, and how to ask about these."""
    names = [str(name) for name in labels.labels if name != found.control.value]
    pairs = [name for name in names if len(members_of(name, found.control.value)) > 1]
    if pairs:
        found.remarks.append(
            f"{len(pairs)} of {len(names)} perturbations are several at once ({listing(pairs, 3)}). To test on such "
            f"pairs only, by how many of their members training sees: --held-out-pairs {'|'.join(PAIR_CLASSES)}."
        )


def _choose_space(found: Plan) -> None:
    """Decide on `X_hvg` or X, and whether the file must be prepared."""
    look = found.look
    reasons: list[str] = []
    kind = look.values["X_hvg"].kind if "X_hvg" in look.values else None
    x_kind = look.values["X"].kind if "X" in look.values else None
    if kind in ("counts", "unlogged"):
        reasons.append(f"obsm['X_hvg'] is {look.values['X_hvg'].words}")
    if kind is None and x_kind in ("counts", "unlogged"):
        reasons.append(f"X is {look.values['X'].words}")
    if kind is None:
        reasons.append("there is no obsm['X_hvg'], the variable genes that STATE trains on by default")
    for name, what in (("scaled", "negative values"), ("broken", "NaN or infinite values")):
        if name in (kind, x_kind if kind is None else None):
            where = "obsm['X_hvg']" if kind else "X"
            found.remarks.append(
                f"{where} holds {what}. Put counts or log-normalised expression there first (they may be in `raw` or "
                "`layers` of the file): gene-wise effects mean nothing on it."
            )
    if x_kind is None and kind is None:
        found.remarks.append("The file has no X with numbers: there is nothing to train on.")
    if found.line.value is None:
        reasons.append("no column names the cell line")
    else:
        columns = [found.perturbation.value, found.line.value]
        numbers = [name for name in columns if name in look.columns and not look.columns[str(name)].is_text]
        if numbers:
            reasons.append(f"labels of {' and '.join(map(str, numbers))} are stored as numbers")
        if found.perturbation.value is not None and not numbers:
            reasons += _unreadable(found)
        if str(found.perturbation.value) in look.columns:
            labels = map(str, look.columns[str(found.perturbation.value)].labels.tolist())
            if twice := doubled(labels, found.control.value or ""):
                shown = listing([" / ".join(group) for group in twice], 3)
                reasons.append(f"{len(twice)} perturbations have several labels ({shown})")
    if reasons and reasons == [r for r in reasons if "obsm['X_hvg'], the" in r] and _too_large(look.size):
        reasons = []
        found.embed_key = None
        found.remarks.append(
            f"There is no obsm['X_hvg'], and `data prepare`, which makes it, holds the whole file in memory "
            f"({look.size / 1e9:.0f} GB); so the commands train on all {look.n_genes:,} genes of X."
        )
    elif reasons and _too_large(look.size):
        found.remarks.append(
            f"`data prepare` holds the whole file in memory, and it has {look.size / 1e9:.0f} GB on disk: run it on a "
            "machine with several times as much."
        )
    found.prepare = reasons


def _unreadable(found: Plan) -> list[str]:
    """Return why STATE cannot read the file, but for a missing X_hvg; nothing where it can."""
    with open_h5ad(found.look.path) as file:
        try:
            refuse_unreadable(
                file,
                found.look.path,
                str(found.perturbation.value),
                str(found.line.value),
                found.batch.value or str(found.line.value),
                None,
            )
        except StateRagError as error:
            said = str(error).removeprefix(f"{found.look.path}: ").partition(" Run `state-rag data prepare")[0]
            return [said.rstrip(".")]
    return []


def _too_large(size: int) -> bool:
    """Tell whether a file is larger than a quarter of this machine's memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return False
    return size > memory / 4
