"""Ensembl's ids of genes with a version, `ENSG00000141510.16`: the version tells a release, not another gene."""

import re
from collections.abc import Iterable

from state_rag.errors import StateRagError
from state_rag.names.spelling import listing

_ID = re.compile(r"(ENS[A-Z]*G\d{6,})(\.\d+)?")


def is_gene_id(name: str) -> bool:
    """Tell whether a name is an Ensembl id of a gene, with or without a version.

    Examples
    --------
    >>> is_gene_id("ENSG00000141510.16"), is_gene_id("ENSMUSG00000059552"), is_gene_id("TP53")
    (True, True, False)
    """
    return name.startswith("ENS") and _ID.fullmatch(name) is not None


def unversioned(name: str) -> str:
    """Return an Ensembl id of a gene without its version; any other name stays.

    Examples
    --------
    >>> unversioned("ENSG00000141510.16"), unversioned("ENSG00000141510"), unversioned("HLA-A.1")
    ('ENSG00000141510', 'ENSG00000141510', 'HLA-A.1')
    >>> unversioned("ENSG00000228572.7_PAR_Y")  # another gene than that without the end
    'ENSG00000228572.7_PAR_Y'
    """
    found = _ID.fullmatch(name) if name.startswith("ENS") else None
    return found[1] if found is not None else name


def unversioned_genes(names: Iterable[str]) -> list[str]:
    """Return names of a matrix's genes without versions.

    Raises
    ------
    StateRagError
        If one gene stands there in two versions.

    Examples
    --------
    >>> unversioned_genes(["ENSG00000141510.16", "TP53"])
    ['ENSG00000141510', 'TP53']
    """
    given = list(names)
    plain = [unversioned(name) for name in given]
    if plain == given:
        return plain
    versions: dict[str, set[str]] = {}
    for name, one in zip(given, plain, strict=True):
        versions.setdefault(one, set()).add(name)
    if twice := [sorted(own) for own in versions.values() if len(own) > 1]:
        raise StateRagError(
            f"{len(twice)} genes have columns in two versions ({listing([' and '.join(own) for own in twice], 3)}). A "
            "version tells the release of the annotation, not another gene: keep one column a gene, such as the sum of "
            "their counts."
        )
    return plain
