"""Look at the values of a split's files: what would give wrong results, and what is only worth knowing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from state_rag.contract.align import align
from state_rag.contract.feature_names import HVG, FileMatrices, column_names
from state_rag.contract.findings import Finding, findings
from state_rag.contract.identity import Identity, read_identity, spaces_used
from state_rag.datasets.command_words import quote
from state_rag.datasets.splitting.split_check import SplitSummary
from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells
from state_rag.names import listing


@dataclass(frozen=True)
class Values:
    """What a split's files hold.

    Attributes
    ----------
    identity
        The spaces and files.
    findings
        What there is to say, what is wrong first.
    cells_read, cells
        How many cells were read in all files, and how many there are.
    """

    identity: Identity
    findings: tuple[Finding, ...]
    cells_read: int
    cells: int


def check_values(
    summary: SplitSummary,
    *,
    pert_col: str,
    control_pert: str,
    cell_type_key: str | None = None,
    embed_key: str | None,
    output_space: str | None = "gene",
    set_size: int = 64,
    told: Callable[[str], object] | None = None,
) -> Values:
    """Read a sample of each file's values and say what does not fit.

    Parameters
    ----------
    summary
        What `check_split` found.
    pert_col, control_pert, cell_type_key, embed_key, output_space
        As under `data.kwargs` in upstream's configuration; they say which matrices are used. `X` is looked at too.
    set_size
        Cells of a set (`model.kwargs.cell_set_len`).
    told
        Called with a file's name before it is read.

    Raises
    ------
    StateRagError
        If a matrix is missing.
    """
    keys = dict.fromkeys((*spaces_used(embed_key, output_space), "X"))
    identity, fits = read_identity(
        summary.files, keys, pert_col=pert_col, control=control_pert, context=cell_type_key, told=told
    )
    used = spaces_used(embed_key, output_space)
    found = [
        finding if one.space.key in used else Finding(finding.file, f"{finding.text} {_NOT_USED}", False)
        for one in fits
        for finding in findings([one], summary.files[0])
    ]
    found += _of_conditions(summary, set_size)
    first = [one.space.scale for one in fits if one.space.key == used[0]]
    return Values(
        identity,
        tuple(sorted(found, key=lambda finding: not finding.is_wrong)),
        sum(scale.cells_read for scale in first),
        sum(scale.cells for scale in first),
    )


def refuse_other_genes(files: Sequence[Path]) -> None:
    """Refuse files of one data set whose genes differ, or are in another order: upstream reads them by position.

    Raises
    ------
    StateRagError
        Naming the first such file, with the command that writes one alike.
    """
    first: dict[str, tuple[str, ...] | None] = {}
    for path in files:
        with open_cells(path) as file:
            matrices = FileMatrices(file)
            here = {key: column_names(matrices, key).names for key in ("X", HVG) if matrices.rows(key) is not None}
        first = first or here
        for key, names in here.items():
            expected = first.get(key)
            if names is None or expected is None or names == expected:
                continue
            found = align(expected, names)
            remedy = f"Run `state-rag data prepare {path} --like {files[0]}`"
            if found.missing:
                all_of_them = " ".join(map(quote, files[:5]))
                all_of_them += f" ... ({len(files)} in all)" if len(files) > 5 else ""
                remedy = (
                    f"Run `state-rag data prepare FILE --like {all_of_them} --common -o NEW` for each of them, every "
                    "time with all of them after --like,"
                )
            raise StateRagError(
                f"{path}: the genes of {key} are not those of {files[0]}: {found.words}. Upstream reads columns by "
                f"position. {remedy} and split what it writes."
            )


_NOT_USED = "(This matrix is not what the model reads.)"


def _of_conditions(summary: SplitSummary, set_size: int) -> list[Finding]:
    """Tell of lines without perturbed cells, and of training perturbations with fewer cells than a set has."""
    where = summary.files[0] if len(summary.files) == 1 else Path(f"{len(summary.files)} files")
    found = []
    perturbed = {line for _, line, _ in summary.conditions}
    if idle := sorted(set(summary.cell_types) - perturbed):
        found.append(
            Finding(where, f"{listing(idle)}: only controls, so nothing of these lines is trained or tested.", False)
        )
    small = few_cells(summary.conditions, set_size)
    if small:
        found.append(
            Finding(
                where,
                f"{len(small)} of {len(summary.conditions)} conditions have fewer cells than a set of {set_size} "
                f"({listing(small, 3)}): their sets repeat cells. A smaller model.kwargs.cell_set_len repeats fewer.",
                False,
            )
        )
    return found


def few_cells(conditions: Mapping[tuple[str, str, str], int], set_size: int) -> list[str]:
    """Return the conditions with fewer cells than a set, fewest first, as `perturbation in line: cells`."""
    few = sorted((cells, name, line) for (_, line, name), cells in conditions.items() if cells < set_size)
    return [f"{name} in {line}: {cells}" for cells, name, line in few]
