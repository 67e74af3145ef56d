"""Mean effects of perturbations in contexts (cell lines): what a perturbation changes on average, and how surely.

A condition's effect is the mean of its cells minus the mean of its context's controls. The file format is h5ad:

=========================  ============================================================================================
`X`                        effects `[conditions, G]`, float64 as they are computed
`layers["mean"]`           mean of the condition's cells
`layers["std"]`            standard deviation between them, unbiased variance; NaN of a single cell
`obs`                      `perturbation`, `context`, `n_cells`
`varm["control_mean"]`     mean of each context's controls, a column a context; `varm["control_std"]` alike
`uns["state_rag"]`         `kind` ("mean_effects"), `control`, `sources`, `left_out`, and `control_n_cells` by context;
                           `treated` where perturbations are labels that tell modes, doses or times
=========================  ============================================================================================
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from state_rag.effects.group_totals import GroupTotals
from state_rag.errors import StateRagError
from state_rag.h5ad_writing import write_h5ad
from state_rag.names import listing

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)

KIND, PREDICTED = "mean_effects", "predicted_effects"
"""`uns["state_rag"]["kind"]` of a table of measured effects, and of one that the evidence engine predicted."""

NO_CONTROLS, NOT_FINITE = "no control cells", "NaN or infinity in its control cells"


@dataclass
class MeanEffects:
    """Mean effects: cell line to perturbation to effect `[G]`, against that line's controls.

    Attributes
    ----------
    effects
        Every condition that can be used; arrays in memory, or read from a file as they are asked for.
    sources
        The data files.
    not_finite
        Conditions `perturbation in line` that are left out because NaN or infinity is among their cells.
    lines_left_out
        Cell lines none of whose effects can be told, and why.
    labels
        Some of the perturbation labels of lines without controls.
    totals
        Where the effects come from, for means, deviations and numbers of cells; None where only effects are known.
    """

    effects: Mapping[str, Mapping[str, np.ndarray]]
    sources: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    lines_left_out: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    totals: GroupTotals | None = None

    @classmethod
    def from_totals(cls, totals: GroupTotals, control: str, sources: list[str]) -> "MeanEffects":
        """Return the effects that can be told from totals of (cell line, perturbation), and what cannot."""
        names: dict[str, list[str]] = {}
        for line, perturbation in totals.groups():
            found = names.setdefault(line, [])
            if perturbation != control:
                found.append(perturbation)
        effects: dict[str, Mapping[str, np.ndarray]] = {}
        result = cls(effects, sources, totals=totals)
        for line, perturbations in names.items():
            if not perturbations:
                continue
            if (line, control) not in totals:
                result.lines_left_out[line] = NO_CONTROLS
                result.labels = sorted({*result.labels, *perturbations})[:8]
                continue
            mean = totals.mean((line, control))
            if not np.isfinite(mean).all():
                result.lines_left_out[line] = NOT_FINITE
                continue
            usable = {name: None for name in perturbations if np.isfinite(totals.mean((line, name))).all()}
            result.not_finite += [f"{name} in {line}" for name in perturbations if name not in usable]
            if usable:
                effects[line] = _Computed(usable, partial(_effect, totals, line, mean))
        return result

    @property
    def n_conditions(self) -> int:
        """Return the number of conditions."""
        return sum(map(len, self.effects.values()))

    def mean_over_lines(self) -> Mapping[str, np.ndarray]:
        """Return every perturbation's effect averaged over the lines that have it."""
        lines: dict[str, list[str]] = {}
        for line, effects in self.effects.items():
            for name in effects:
                lines.setdefault(name, []).append(line)
        return _Computed(lines, lambda name: np.mean([self.effects[line][name] for line in lines[name]], axis=0))

    def to_anndata(self, features: list[str], control: str, *, treated: bool = False) -> "anndata.AnnData":
        """Return the effects in memory, laid out as this module says, by context and perturbation.

        Parameters
        ----------
        features
            Gene names, G of them.
        control
            Label of control cells.
        treated
            Whether perturbations are labels that tell modes, doses or times (`names.treatments`).

        Raises
        ------
        StateRagError
            If there is no condition whose effect can be told; the message says why.
        """
        import anndata
        import pandas as pd

        if self.totals is None:
            raise ValueError("only effects are known, not means and deviations of cells")
        keys = [(line, name) for line in sorted(self.effects) for name in sorted(self.effects[line])]
        if not keys:
            why = "; ".join(f"{line}: {reason}" for line, reason in self.lines_left_out.items())
            found = f" Perturbations there: {', '.join(self.labels)}." if self.labels else ""
            raise StateRagError(
                f"no effect can be told, since no cell line has both controls ({control!r}) and perturbed cells"
                f"{f' ({why})' if why else ''}.{found} Name the control's label with `control`."
            )
        for line, why in self.lines_left_out.items():
            logger.warning("%s is left out: %s.", line, why)
        if self.not_finite:
            logger.warning("Left out, with NaN or infinity among their cells: %s.", listing(self.not_finite))
        shape = len(keys), len(features)
        arrays: dict[str, np.ndarray] = {
            "effect": np.empty(shape),
            **{kind: np.empty(shape, dtype=np.float32) for kind in ("mean", "std")},
        }
        for row, (line, name) in enumerate(keys):
            arrays["effect"][row] = self.effects[line][name]
            arrays["mean"][row] = self.totals.mean((line, name))
            arrays["std"][row] = self.totals.std((line, name))
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical([name for _, name in keys]),
                "context": pd.Categorical([line for line, _ in keys]),
                "n_cells": [self.totals.cells[key] for key in keys],
            },
            index=pd.Index([f"{name} in {line}" for line, name in keys], dtype=str),
        )
        adata = anndata.AnnData(arrays["effect"], obs=obs, var=pd.DataFrame(index=pd.Index(features, dtype=str)))
        adata.layers["mean"], adata.layers["std"] = arrays["mean"], arrays["std"]
        contexts = sorted(self.effects)
        for kind, of in (("control_mean", self.totals.mean), ("control_std", self.totals.std)):
            columns = {context: of((context, control)).astype(np.float32) for context in contexts}
            adata.varm[kind] = pd.DataFrame(columns, index=adata.var_names)
        left_out = [*self.not_finite, *(f"{line}: {reason}" for line, reason in self.lines_left_out.items())]
        adata.uns["state_rag"] = {
            "kind": KIND,
            "control": control,
            "sources": self.sources,
            "left_out": left_out,
            # A JSON text, since names of cell lines may hold a slash, which h5ad takes for a path.
            "control_n_cells": json.dumps({context: self.totals.cells[context, control] for context in contexts}),
        }
        if treated:
            adata.uns["state_rag"]["treated"] = True
        return adata

    @classmethod
    def from_anndata(cls, adata: "anndata.AnnData") -> "MeanEffects":
        """Return the effects of an AnnData object of this format.

        Raises
        ------
        StateRagError
            If it is of another format.
        """
        if not is_mean_effects(adata):
            raise StateRagError("these are no mean effects; make them with `state_rag.effects.from_anndata`")
        effects: dict[str, dict[str, np.ndarray]] = {}
        labels = zip(adata.obs["context"].astype(str), adata.obs["perturbation"].astype(str), strict=True)
        for row, (line, name) in enumerate(labels):
            effects.setdefault(line, {})[name] = np.asarray(adata.X[row], dtype=np.float64).ravel()
        return cls(effects, [str(source) for source in adata.uns["state_rag"].get("sources", [])])


def is_mean_effects(adata: "anndata.AnnData") -> bool:
    """Tell whether an AnnData object holds mean effects rather than cells."""
    about = adata.uns.get("state_rag")
    return isinstance(about, Mapping) and about.get("kind") == KIND


def write_mean_effects(adata: "anndata.AnnData", path: str | os.PathLike[str]) -> Path:
    """Write mean effects as an h5ad file; `path` holds the whole file afterwards, or what it held before.

    Parameters
    ----------
    adata
        Of `from_anndata` or `read`.
    path
        The file; `state_rag.effects.read` reads it back.

    Raises
    ------
    StateRagError
        If the object holds no mean effects, or the file cannot be written.
    """
    if not is_mean_effects(adata):
        raise StateRagError(f"{path}: what is to be written there are no mean effects")
    return write_h5ad(adata, path)


@dataclass(frozen=True)
class _Computed(Mapping[str, np.ndarray]):
    """Effects `[G]` of some perturbations, computed from the totals at each look."""

    names: Mapping[str, object]
    effect: Callable[[str], np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        return self.effect(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _effect(totals: GroupTotals, line: str, control: np.ndarray, perturbation: str) -> np.ndarray:
    return totals.mean((line, perturbation)) - control
