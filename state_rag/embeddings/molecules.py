"""Molecules (SMILES) as a source: drugs are alike that share substructures.

The kernel is the Tanimoto coefficient of Morgan fingerprints, radius 2, 2048 bits (Rogers and Hahn 2010): bits that
both have over bits that either has. It is positive semi-definite, so that vectors with these products exist.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.embeddings.factor import factor
from state_rag.embeddings.graphs import fields_of
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.text_lines import text_lines

logger = logging.getLogger(__name__)

RADIUS, BITS = 2, 2048
NAME_COLUMNS = ("name", "drug", "compound", "compound_name", "perturbation", "molecule", "treatment", "gene")
"""What the column with names is called; else it is the first one beside the SMILES."""


@dataclass(frozen=True)
class Molecules:
    """Molecules by name.

    Attributes
    ----------
    smiles
        Name -> SMILES.
    source
        The file, for messages.
    """

    smiles: dict[str, str]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names."""
        return tuple(self.smiles)

    @property
    def facts(self) -> str:
        """Return what was taken, in words."""
        return f"{len(self.smiles)} molecules"

    def embedded(self, names: Collection[str]) -> tuple[list[str], np.ndarray]:
        """Return those of some names that have a readable SMILES, and vectors whose products are Tanimoto's.

        Parameters
        ----------
        names
            Molecules.

        Returns
        -------
        tuple
            P names, in the order given, and float32 [P, D].

        Raises
        ------
        StateRagError
            If RDKit is not installed.
        """
        found = {name: fingerprint(self.smiles[name]) for name in dict.fromkeys(names) if name in self.smiles}
        if unreadable := [f"{name} ({self.smiles[name]})" for name, bits in found.items() if bits is None]:
            logger.warning("%s: left out, since RDKit reads no molecule in it: %s.", self.source, listing(unreadable))
        known = {name: bits for name, bits in found.items() if bits is not None}
        bits = np.stack(list(known.values())) if known else np.zeros((0, BITS), dtype=np.float32)
        return list(known), factor(tanimoto(bits))


def tanimoto(bits: np.ndarray) -> np.ndarray:
    """Return the Tanimoto coefficients of fingerprints, float32 [P, P].

    Parameters
    ----------
    bits
        [P, BITS] of 0 and 1. Two without any bit are not alike.
    """
    both = bits @ bits.T
    count = bits.sum(axis=1)
    either = count[:, None] + count[None] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def fingerprint(smiles: str) -> np.ndarray | None:
    """Return the Morgan fingerprint of a molecule, float32 [BITS] of 0 and 1; None where the text is no molecule.

    Raises
    ------
    StateRagError
        If RDKit is not installed.
    """
    chem, generator = _rdkit()
    molecule = chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        return None
    return np.asarray(generator.GetFingerprintAsNumPy(molecule), dtype=np.float32)


def read_smiles(path: Path) -> Molecules:
    """Read molecules: a table with a column of SMILES and one of names, or a `.smi` file (`.gz` too).

    Parameters
    ----------
    path
        `.smi`: SMILES, then the name. Any other: the first line names the columns, one of which has `smiles` in its
        name.

    Raises
    ------
    StateRagError
        If there is no such column, a name has two SMILES, or there is none at all.
    """
    lines = text_lines(path)
    pairs = _smi(lines) if ".smi" in path.name.lower() else _table(lines, str(path))
    smiles: dict[str, str] = {}
    lacking, nameless = [], 0
    for name, text in pairs:
        nameless += bool(text and not name)
        if name and text.lower() in ("", "nan", "na", "none"):
            lacking.append(name)
        elif name and smiles.setdefault(name, text) != text:
            raise StateRagError(f"{path}: {name} has two SMILES, {smiles[name]} and {text}. Keep one.")
    if not smiles:
        raise StateRagError(f"{path}: has no molecule; expected a name and its SMILES in each line.")
    if nameless:
        raise StateRagError(f"{path}: {nameless} lines have a SMILES and no name; name them, or leave them out.")
    if lacking := [name for name in dict.fromkeys(lacking) if name not in smiles]:
        logger.warning("%s: %d names have no SMILES, and stay unknown: %s.", path, len(lacking), listing(lacking))
    return Molecules(smiles, str(path))


def smiles_column(header: str) -> int | None:
    """Return which field of a first line says that its column is SMILES; None where none does.

    Examples
    --------
    >>> smiles_column("drug,canonical_smiles,target"), smiles_column("COPB1,0.1,0.2")
    (1, None)
    """
    return next((place for place, name in enumerate(fields_of(header)) if "smiles" in name.lower()), None)


def _smi(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(lines):
        text, _, name = line.strip().partition("\t" if "\t" in line else " ")
        if not (number == 0 and text.lower() == "smiles"):
            yield name.strip(), text


def _table(lines: Iterable[str], source: str) -> Iterable[tuple[str, str]]:
    import csv

    rows = iter(lines)
    header = next(rows, "")
    place = smiles_column(header)
    if place is None:
        raise StateRagError(f"{source}: the first line names no column of SMILES; found {header[:60]!r}")
    columns = [name.lower() for name in fields_of(header)]
    others = [number for number in range(len(columns)) if number != place]
    if not others:
        raise StateRagError(f"{source}: has SMILES alone; expected a column with the molecules' names beside them.")
    named = next((number for name in NAME_COLUMNS for number in others if columns[number] == name), others[0])
    for number, row in enumerate(csv.reader(rows, delimiter="\t" if "\t" in header else ","), start=2):
        if not any(map(str.strip, row)):
            continue
        if len(row) <= max(place, named):
            raise StateRagError(
                f"{source}: line {number} has {len(row)} fields, and the first line names {len(columns)}; found "
                f"{' '.join(row)[:60]!r}"
            )
        yield row[named].strip(), row[place].strip()


def _rdkit() -> tuple[Any, Any]:
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem import rdFingerprintGenerator
    except ImportError as error:
        raise StateRagError(
            "molecules need RDKit to be read: install it with `pip install state-rag[molecules]`."
        ) from error
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    return Chem, rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
