"""What to say where a table of embeddings knows none of a screen's perturbations."""

from collections.abc import Collection
from pathlib import Path

from state_rag.embeddings.readers import read_embeddings
from state_rag.names import drug_of, listing


def none_known(path: Path, names: Collection[str], text_width: int = 256) -> str:
    """Return the message, with a way on where the labels are drugs with their dose.

    Parameters
    ----------
    path
        The file of embeddings.
    names
        Labels of the perturbations.
    text_width
        As for `read_embeddings`.
    """
    said = (
        f"{path} has an embedding for none of the {len(names)} perturbations of the data "
        f"({listing(sorted(names), 10)}). "
    )
    drugs = sorted({drug for name in names if (drug := drug_of(name)) is not None})
    if not drugs:
        return f"{said}Check that both use the same kind of names, such as gene symbols."
    known = len(read_embeddings(path, names=drugs, text_width=text_width).names)
    return (
        f"{said}These labels are drugs with their dose, and embeddings are found by the whole label. Of the "
        f"{len(drugs)} drugs ({listing(drugs)}) the file knows {known}. Write the drug's name alone into an obs column "
        "and name that with data.kwargs.pert_col (doses then count as one perturbation), or write a table whose names "
        "are the labels."
    )
