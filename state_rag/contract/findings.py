"""What is wrong, doubtful or unknown about the matrices of files, a sentence each, with what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state_rag.contract.identity import FileFit
from state_rag.contract.space import Space, unsuited
from state_rag.names import listing, repeated


@dataclass(frozen=True)
class Finding:
    """Something about a file.

    Attributes
    ----------
    file
        Which one.
    text
        What it is and what to do, a sentence or more.
    is_wrong
        Whether results would be wrong; else they may be less exact, or something could not be checked.
    """

    file: Path
    text: str
    is_wrong: bool

    def __str__(self) -> str:
        """Return file and text."""
        return f"{self.file}: {self.text}"


def findings(fits: Iterable[FileFit], like: Path, *, by_position: bool = True) -> list[Finding]:
    """Return what there is to say of files.

    Parameters
    ----------
    fits
        How each file and space fits what is expected.
    like
        The file, or the folder of the run, that sets what is expected.
    by_position
        Whether they are read as they lie, so that another order of genes is wrong too.
    """
    found: dict[tuple[Path, str], Finding] = {}
    for one in fits:
        errors, warnings = _about(one, like, by_position)
        for text, is_wrong in [*((text, True) for text in errors), *((text, False) for text in warnings)]:
            found.setdefault((one.path, text), Finding(one.path, text, is_wrong))
    return list(found.values())


def _about(one: FileFit, like: Path, by_position: bool) -> tuple[list[str], list[str]]:
    errors, warnings = list(one.fit.errors), list(one.fit.warnings)
    alignment, space = one.fit.alignment, one.space
    if alignment is not None and not alignment.is_identity:
        remedy = f"Run `state-rag data prepare {one.path} --like {like}`, which writes a file with the same genes"
        if alignment.missing:
            errors[0] += f" {remedy} where you add --common; name all files after --like, and prepare each of them so."
        elif by_position:
            errors.append(f"the genes of {space.title} are not those of {like}: {alignment.words}. {remedy}.")
    if (found := unsuited(space)) is not None:
        text, is_wrong = found
        (errors if is_wrong else warnings).append(text)
    if space.note and space.names is not None:
        warnings.append(
            f"{space.note}. By their values they are others, and are taken as those; plain STATE goes by the wrong "
            "names. `state-rag data prepare` makes them agree."
        )
    elif space.note:
        errors.append(f"{space.note}, and which genes they are is unknown. `state-rag data prepare` makes X_hvg anew.")
    elif space.is_expression and space.names is None:
        warnings.append(
            f"the genes of {space.title} are unknown: nothing names its columns, and they are not columns of X. "
            "`state-rag data prepare` makes X_hvg anew."
        )
    twice = repeated(space.names or ())
    if twice:
        warnings.append(
            f"{len(twice):,} gene names of {space.title} stand for several columns ({listing(twice)}), so cells whose "
            "columns are in another order cannot be read by them. `state-rag data prepare` makes names unique."
        )
    return errors, warnings + _empty(space)


def _empty(space: Space) -> list[str]:
    """Tell of cells and genes without a value; of genes only where all cells were read."""
    texts, scale = [], space.scale
    if scale.empty_cells and space.is_expression and scale.kind != "empty":
        texts.append(
            f"{scale.empty_cells:,} of {scale.cells_read:,} cells have no expression at all in {space.title}. Remove "
            "them: they count in every mean."
        )
    if scale.empty_columns and space.is_expression and not scale.sampled and scale.kind != "empty":
        columns: Sequence[object] = scale.empty_columns
        if space.names is not None:
            columns = np.asarray(space.names, dtype=object)[list(scale.empty_columns)].tolist()
        texts.append(
            f"{len(columns):,} genes of {space.title} are zero in every cell ({listing(columns)}). They can stay; they "
            "say nothing."
        )
    return texts
