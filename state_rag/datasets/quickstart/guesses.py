"""Which obs column and label play which part in a screen: guessed from names and from structure, with the reasons.

A column's name says most: the usual ones, then words in it. Structure confirms: perturbations have a control among them
and are genes of the file; a cell line has cells of the control; a control is in every line and has the most cells.
Nothing is chosen by structure alone, but a control where one label stands out.
"""

import re
from dataclasses import dataclass

import numpy as np

from state_rag.datasets.columns import BATCH_COLUMNS, CELL_TYPE_COLUMNS, PERTURBATION_COLUMNS
from state_rag.datasets.quickstart.first_look import Column, FirstLook
from state_rag.names import listing
from state_rag.names.controls import control_likeness
from state_rag.names.gene_ids import is_gene_id

_PERTURBATION_WORDS = (
    "pert gene guide sgrna target drug compound treatment condition knockdown knockout molecule chemical cytokine stim"
)
_FINER_WORDS = re.compile(r"guide|sgrna|sgid|barcode|transcript|_id$|^id_|ensembl|raw|dose|cell", re.IGNORECASE)
_CELL_WORDS = "cell_line cellline cell_type celltype cell_name line tissue organ context donor patient strain"
_BATCH_WORDS = "batch gem plate lane sample replicate rep library channel run pool well experiment"
_NOT_LINES = re.compile(r"^n_|^n[A-Z]|count|phase|ontology|percent|score|pert|gene|condition", re.IGNORECASE)

_GENE = re.compile(r"[A-Z][A-Z0-9-]{1,11}|[A-Z][a-z0-9-]{1,11}[0-9]*|C\d+orf\d+")
_DRUG_WORDS = {"drug", "drugs", "drugname", "compound", "compounds", "molecule", "chemical", "product"}


@dataclass(frozen=True)
class Guess:
    """What was found for one part.

    Attributes
    ----------
    value
        The column or label; None where nothing fits.
    sure
        `sure`, `likely` or `guess`; `given` where the user said it; `not found`.
    why
        What speaks for it, or what was looked for.
    rejected
        Others that could have been meant, and why they are not.
    """

    value: str | None
    sure: str
    why: str
    rejected: tuple[tuple[str, str], ...] = ()


def words_of(name: str) -> set[str]:
    """Return the words of a column's name, lower case, and the whole in the same spelling.

    Examples
    --------
    >>> sorted(words_of("CellLine.name"))
    ['cell', 'cell_line_name', 'line', 'name']
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    parts = [part for part in re.split(r"[\W_]+", parted.lower()) if part]
    return {*parts, "_".join(parts)}


def guess_perturbation(look: FirstLook, given: str | None = None) -> Guess:
    """Guess the column of the perturbations."""
    if given is not None:
        return Guess(given, "given", f"{len(look.columns[given].labels)} labels" if given in look.columns else "")
    rated = []
    for column in look.columns.values():
        if len(column.labels) < 2 or _is(column.name, CELL_TYPE_COLUMNS) or _is(column.name, BATCH_COLUMNS):
            continue
        points, reasons = _name_points(column.name, PERTURBATION_COLUMNS, _PERTURBATION_WORDS)
        if points and _FINER_WORDS.search(column.name) and not _is(column.name, PERTURBATION_COLUMNS):
            points -= 0.75
        if any(control_likeness(label) >= 2 for label in column.labels):
            points += 3
        share = gene_share(column, look)
        if share >= 0.3:
            points += 2
        if not column.is_text:
            points -= 1
        if points > 0 and (reasons or points >= 5):
            rated.append((points, column))
    rated.sort(key=lambda pair: (-pair[0], _place(pair[1].name, PERTURBATION_COLUMNS), pair[1].name))
    if not rated or rated[0][0] < 1.5:
        return Guess(None, "not found", "no column is named like perturbations or holds a control and genes")
    best, column = rated[0]
    others = [(other, points) for points, other in rated[1:]]
    rivals = [other for other, points in others if points > best - 1.5 and not same_groups(column, other)]
    sure = "sure" if best >= 5 and not rivals else "likely" if best >= 4 else "guess"
    rejected = tuple((other.name, _why_not(column, other)) for other, _ in others[:3])
    return Guess(column.name, sure, f"{_usual(column.name, PERTURBATION_COLUMNS)}{len(column.labels)} labels", rejected)


def guess_control(perturbation: Column, line: Column | None, given: str | None = None) -> Guess:
    """Guess the label of the control among the perturbations."""
    counts = perturbation.counts
    if given is not None:
        return Guess(given, "given", "")
    everywhere = _in_every_line(perturbation, line)
    likeness = np.array([control_likeness(label) for label in perturbation.labels])
    order = np.lexsort((-counts, -likeness))
    first = int(order[0])
    name, cells = str(perturbation.labels[first]), f"{int(counts[first]):,} cells"
    where = "" if line is None else ", in every cell line" if everywhere[first] else ", but not in every cell line"
    if likeness[first]:
        rivals = [int(i) for i in order[1:] if likeness[i] == likeness[first]]
        sure = "sure" if likeness[first] == 3 and everywhere[first] and not rivals else "likely"
        if likeness[first] == 1 and not everywhere[first]:
            sure = "guess"
        also = [int(i) for i in order[1:] if likeness[i] >= 2]
        rejected = tuple(
            (str(perturbation.labels[i]), f"named like a control, {int(counts[i]):,} cells; counts as a perturbation")
            for i in also[:2]
        )
        if len(also) > 2:
            rejected += ((f"{len(also) - 2} more", "named like controls; merge them into one label to use them all"),)
        return Guess(name, sure, f"named like a control; {cells}{where}", rejected)
    top = np.argsort(-counts, kind="stable")[:2]
    if len(top) == 2 and everywhere[top[0]] and counts[top[0]] >= 2 * counts[top[1]]:
        best = int(top[0])
        most, next_most = int(counts[best]), int(counts[top[1]])
        why = f"no usual name, but the most cells by far ({most:,}; next {next_most:,}){_also(line)}"
        return Guess(str(perturbation.labels[best]), "guess", why)
    return Guess(None, "not found", f"none of {len(counts)} labels is named like a control or stands out in cells")


def guess_line(look: FirstLook, perturbation: Column | None, given: str | None = None) -> Guess:
    """Guess the column of the cell line, cell type or other context."""
    if given is not None:
        about = f"{len(look.columns[given].labels)} labels" if given in look.columns else ""
        return Guess(given, "given", about)
    rated = []
    for column in look.columns.values():
        points, _ = _name_points(column.name, CELL_TYPE_COLUMNS, _CELL_WORDS)
        if not points or (_NOT_LINES.search(column.name) and not _is(column.name, CELL_TYPE_COLUMNS)):
            continue
        if perturbation is not None:
            if column.name == perturbation.name or same_groups(column, perturbation):
                continue
            points += 1.5 * (len(column.labels) > 1 and _meets_often(perturbation, column))
        if not column.is_text or len(column.labels) > 500:
            points -= 1
        if re.search(r"(^|_)id$", column.name):
            points -= 0.5
        rated.append((points, column))
    rated.sort(key=lambda pair: (-pair[0], _place(pair[1].name, CELL_TYPE_COLUMNS), pair[1].name))
    if not rated:
        return Guess(None, "not found", "no column is named like a cell line or cell type")
    best, column = rated[0]
    rivals = [other for points, other in rated[1:] if points > best - 1 and not same_groups(column, other)]
    sure = "sure" if best >= 3 and not rivals else "likely" if best >= 2.5 else "guess"
    about = f"{len(column.labels)} label{'s' * (len(column.labels) != 1)}: {listing(column.labels, 6)}"
    rejected = tuple((other.name, _why_not(column, other)) for _, other in rated[1:4])
    return Guess(column.name, sure, f"{_usual(column.name, CELL_TYPE_COLUMNS)}{about}", rejected)


def guess_batch(look: FirstLook, taken: set[str | None], given: str | None = None) -> Guess:
    """Guess the column of the batch."""
    if given is not None:
        return Guess(given, "given", "")
    rated = []
    for column in look.columns.values():
        points, _ = _name_points(column.name, BATCH_COLUMNS, _BATCH_WORDS)
        if points and column.name not in taken and not column.name.lower().startswith("n_"):
            rated.append((points, column))
    rated.sort(key=lambda pair: (-pair[0], _place(pair[1].name, BATCH_COLUMNS), pair[1].name))
    if not rated:
        return Guess(None, "not found", "no column is named like a batch")
    best, column = rated[0]
    rivals = [other for points, other in rated[1:] if points == best and not same_groups(column, other)]
    rejected = tuple((other.name, _why_not(column, other)) for _, other in rated[1:4])
    sure = "sure" if best >= 3 and not rivals else "likely"
    return Guess(column.name, sure, f"{_usual(column.name, BATCH_COLUMNS)}{len(column.labels)} labels", rejected)


def gene_share(column: Column, look: FirstLook) -> float:
    """Return the fraction of labels, controls aside, all of whose parts (`A+B`, `A_B`, `A|B`) are genes of the file."""
    labels = [label for label in column.labels if not control_likeness(label)]
    if not labels or not column.is_text:
        return 0.0
    return sum(_all_parts(label, look.genes.__contains__) for label in labels) / len(labels)


def kind_of_names(column: Column, look: FirstLook) -> tuple[str, str]:
    """Return (`genes`, `ensembl`, `other`) and what speaks for it."""
    labels = [label for label in column.labels if not control_likeness(label)]
    if not labels:
        return "other", "there is none but the control"
    if sum(is_gene_id(label) for label in labels) > len(labels) / 2:
        return "ensembl", f"Ensembl ids, such as {labels[0]}"
    share = gene_share(column, look)
    if share >= 0.3:
        return "genes", f"{round(share * len(labels))} of {len(labels)} are genes of the file"
    if share == 0 and words_of(column.name) & _DRUG_WORDS:
        return "other", f"by the column's name drugs, such as {labels[0]}"
    written = sum(_all_parts(label, lambda part: bool(_GENE.fullmatch(part)), upper=False) for label in labels)
    if column.is_text and written > 0.8 * len(labels):
        return "genes", f"{written} of {len(labels)} are written like gene symbols"
    return "other", f"{written} of {len(labels)} are written like gene symbols"


def structures(perturbation: Column, look: FirstLook) -> str | None:
    """Return the column that has the SMILES of each perturbation; None without one."""
    named = [column for column in look.columns.values() if "smiles" in column.name.lower()]
    found = [one.name for one in named if _n_pairs(perturbation, one) == len(perturbation.labels)]
    return next((name for name in found if name != perturbation.name), None)


def same_groups(first: Column, second: Column) -> bool:
    """Tell whether two columns group the cells alike, whatever they call the groups."""
    return _n_pairs(first, second) == len(first.labels) == len(second.labels)


def _n_pairs(first: Column, second: Column) -> int:
    both = (first.codes >= 0) & (second.codes >= 0)
    return len(np.unique(first.codes[both].astype(np.int64) * len(second.labels) + second.codes[both]))


def _meets_often(perturbation: Column, column: Column) -> bool:
    """Tell whether perturbations as a rule occur under more than one label of a column."""
    return _n_pairs(perturbation, column) >= 1.5 * len(perturbation.labels)


def _in_every_line(perturbation: Column, line: Column | None) -> np.ndarray:
    """Return, for each perturbation, whether it has cells in every line, bool `[P]`."""
    if line is None:
        return np.ones(len(perturbation.labels), dtype=bool)
    both = (perturbation.codes >= 0) & (line.codes >= 0)
    pairs = np.unique(perturbation.codes[both].astype(np.int64) * len(line.labels) + line.codes[both])
    return np.bincount(pairs // len(line.labels), minlength=len(perturbation.labels)) == len(line.labels)


def _all_parts(label: str, is_gene, upper: bool = True) -> bool:  # noqa: ANN001
    parts = [part for part in re.split(r"[+|;,_]", label) if control_likeness(part) < 2]
    return bool(parts) and all(is_gene(part.upper() if upper else part) for part in parts)


def _is(name: str, usual: tuple[str, ...]) -> bool:
    return name.lower() in {one.lower() for one in usual}


def _place(name: str, usual: tuple[str, ...]) -> int:
    lowered = [one.lower() for one in usual]
    return lowered.index(name.lower()) if name.lower() in lowered else len(usual)


def _name_points(name: str, usual: tuple[str, ...], words: str) -> tuple[float, bool]:
    if _is(name, usual):
        return 3.0, True
    wanted, found = words.split(), words_of(name)
    whole = "_".join(sorted(found, key=len)[-1:])
    named = any(word in found or ("_" in word and word in whole) for word in wanted)
    named = named or any(len(word) > 3 and part.startswith(word) for word in wanted for part in found)
    return (1.5, True) if named else (0.0, False)


def _usual(name: str, usual: tuple[str, ...]) -> str:
    return "a usual name; " if _is(name, usual) else "by its name; "


def _why_not(chosen: Column, other: Column) -> str:
    if same_groups(chosen, other):
        return "the same groups under other names"
    if len(other.labels) == 1:
        return f"one label only: {other.labels[0]}"
    if _n_pairs(chosen, other) == len(other.labels):
        return f"finer: {len(other.labels)} labels within those of {chosen.name}"
    return f"{len(other.labels)} labels: {listing(other.labels, 3)}"


def _also(line: Column | None) -> str:
    return ", and in every cell line" if line is not None else ""
