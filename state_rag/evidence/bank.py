"""The bank: measured responses by number instead of by name, scaled to unit size, as the mathematics takes them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.responses import Responses
from state_rag.evidence.treatments import Axes, Treatments
from state_rag.evidence.units import Units
from state_rag.names.combinations import SEPARATOR, parts_of, plain_of
from state_rag.names.gene_ids import is_gene_id, unversioned
from state_rag.names.treatments import doses_in, label_of, refuse_unit, treatment_of

FEWEST_OWN = 6
"""Genes that measured perturbations are named after, below which they are treated like any other gene."""


class Bank:
    """Responses as tensors; contexts and perturbations are numbers.

    Parameters
    ----------
    responses
        The measured conditions.
    more
        Further perturbations that may be asked for (those with an embedding); they have no response.
    axes
        What labels tell of modes, doses and times (`names.treatments`); None where labels are names and nothing else.
    own_apart
        Whether effects on the genes that perturbations are named after are left out of `effects_on_others`.
    units
        What the numbers are relative to; those of the responses by default.

    Attributes
    ----------
    contexts, perturbations
        Names, C and P of them; perturbations are labels where these tell modes, doses or times.
    names
        Those of perturbations; different labels may share one.
    context, perturbation
        Long [N]: of each measured condition.
    effects
        float64 [N, G]: effects divided by `scale`.
    units
        What the numbers are relative to.
    scale
        Unit of effects: the root mean square of those that the engine was fitted on; 1 where they are all zero.
    scarcity
        float64 [N]: median cell count, of the fit, divided by the condition's own; 1 where counts are unknown.
    row
        Long [C, P]: row of each condition, -1 where it was not measured.
    control
        float64 [C, G], standardised over contexts and genes, 0 where unknown; None where the fit knew no control mean.
    named
        Long [P]: the same for labels of the same name; the perturbation's own number where labels are names.
    count
        Long [C, P]: measured conditions of each name in a context.
    own_gene
        Long [P]: number of the gene that a perturbation is named after; -1 where that was not measured.
    treatments
        Of each label; None where labels are names.
    other_names
        Other name -> perturbation's name, for questions; empty at first.
    dose_unit
        Unit of the doses in labels (`names.treatments.unit_of`), for questions; None where it is not known.
    """

    def __init__(
        self,
        responses: Responses,
        more: Iterable[str] = (),
        axes: Axes | None = None,
        *,
        own_apart: bool = True,
        units: Units | None = None,
    ) -> None:
        self.units = Units.of(responses) if units is None else units
        self.contexts = responses.context_names
        self._plain = {plain_of(name): name for name in reversed(responses.perturbation_names)}
        further = (name for name in more if plain_of(name) not in self._plain or name in responses.perturbation_names)
        self.perturbations = tuple(dict.fromkeys((*responses.perturbation_names, *further)))
        self._context = {name: number for number, name in enumerate(self.contexts)}
        self._perturbation = {name: number for number, name in enumerate(self.perturbations)}
        self.context = torch.tensor([self._context[name] for name in responses.contexts])
        self.perturbation = torch.tensor([self._perturbation[name] for name in responses.perturbations])
        effects = responses.effects.astype(np.float64)
        self.scale = self.units.effect
        self.effects = torch.from_numpy(effects / self.scale)
        self.scarcity = torch.ones(len(responses), dtype=torch.float64)
        if responses.cells is not None and self.units.cells is not None:
            self.scarcity = torch.from_numpy(self.units.cells / responses.cells)
        self.row = torch.full((len(self.contexts), len(self.perturbations)), -1, dtype=torch.long)
        self.row[self.context, self.perturbation] = torch.arange(len(responses))
        self.control = self._controls(responses)
        self.other_names: dict[str, str] = {}
        self.dose_unit: str | None = None
        self.names = self.perturbations
        self.named = torch.arange(len(self.perturbations))
        self.count = (self.row >= 0).long()
        self.axes, self.own_apart = axes, own_apart
        self.treatments: Treatments | None = None
        if axes is not None:
            self._tell_apart(axes)
        self._gene = {name: number for number, name in enumerate(responses.genes)}
        self.own_gene = torch.tensor([self.gene_of(name) for name in self.names], dtype=torch.long)[self.named]

    def __len__(self) -> int:
        return len(self.effects)

    @cached_property
    def effects_on_others(self) -> Tensor:
        """float64 [N, G]: effects, those on the genes that perturbations are named after taken as 0.

        The same as `effects` where that is not wanted, or fewer than `FEWEST_OWN` measured perturbations have a gene.
        """
        own = self.own_gene[self.perturbation]
        rows = torch.nonzero(own >= 0).flatten()
        if not self.own_apart or len(torch.unique(own[rows])) < FEWEST_OWN:
            return self.effects
        found = self.effects.clone()
        found[rows, own[rows]] = 0
        return found

    def number_of_context(self, name: str) -> int:
        """Return a context's number, -1 for one that was never measured."""
        return self._context.get(name, -1)

    def number_of(self, perturbation: str) -> int:
        """Return a perturbation's number, also by another name; -1 for one of which nothing is known.

        `A` and `A+ctrl` are the same, whichever was measured.
        """
        if self.treatments is not None:
            return self._perturbation.get(self.own_label(perturbation), -1)
        plain = plain_of(perturbation)
        for name in (perturbation, self.called(perturbation), self._plain.get(plain), plain):
            if name is not None and name in self._perturbation:
                return self._perturbation[name]
        return -1

    def gene_of(self, name: str) -> int:
        """Return the number of the gene of a name, -1 where that was not measured."""
        own = (unversioned(plain_of(one)) for one in (name, self.called(name)))
        return next((self._gene[gene] for gene in own if gene in self._gene), -1)

    def called(self, name: str) -> str:
        """Return what a name is called here: by another name, or as an Ensembl id with another version; else itself."""
        if name in (self._perturbation if self.treatments is None else self._alike):
            return name
        own = self.other_names.get(name) or self.other_names.get(unversioned(name))
        return own or (self._ids.get(unversioned(name)) if is_gene_id(name) else None) or name

    @cached_property
    def _ids(self) -> dict[str, str]:
        """Ensembl id without version -> the name that has it, where that is one."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            if is_gene_id(name):
                found.setdefault(unversioned(name), []).append(name)
        return {plain: own[0] for plain, own in found.items() if len(own) == 1}

    def own_label(self, label: str) -> str:
        """Return a label as the bank would spell it, other names too; where labels are names it stays.

        Raises
        ------
        StateRagError
            If it is no label, or names a dose in another unit than the data.
        """
        if self.treatments is None:
            return label
        for dose in doses_in(label):
            refuse_unit(dose, self.dose_unit)
        found = []
        for part in parts_of(label):
            name, treatment = treatment_of(part)
            found.append(label_of(name if name in self._alike else self.called(name), treatment))
        return SEPARATOR.join(sorted(found))

    def alike(self, label: str) -> tuple[str, ...]:
        """Return the labels of the same name as a label of a single perturbation, measured ones first."""
        if self.treatments is None:
            return (label,) if label in self._perturbation else ()
        return tuple(self._alike.get(treatment_of(self.own_label(label))[0], ()))

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the perturbations that can be asked for: all but names without what labels tell beside."""
        if self.treatments is None:
            return self.perturbations
        allows = self.treatments.axes.allows
        return tuple(label for label in self.perturbations if allows(treatment_of(label)[1]))

    def rows_of(self, context: int) -> Tensor:
        """Return the rows measured in a context, ascending; none for -1."""
        return torch.nonzero(self.context == context).flatten()

    def measured(self, context: int, perturbation: int) -> bool:
        """Tell whether a condition was measured; not for numbers below 0."""
        return context >= 0 and perturbation >= 0 and int(self.row[context, perturbation]) >= 0

    def elsewhere(self, context: int) -> Tensor:
        """Return the rows measured in other contexts than this, ascending; all for -1."""
        return torch.nonzero(self.context != context).flatten()

    def _tell_apart(self, axes: Axes) -> None:
        """Take labels apart."""
        parts = [treatment_of(label) for label in self.perturbations]
        number: dict[str, int] = {}
        self._alike: dict[str, list[str]] = {}
        for label, (name, _) in zip(self.perturbations, parts, strict=True):
            number.setdefault(name, len(number))
            self._alike.setdefault(name, []).append(label)
        self.names = tuple(number)
        self.named = torch.tensor([number[name] for name, _ in parts])
        self.treatments = Treatments.of(axes, [treatment for _, treatment in parts])
        by_name = torch.zeros(len(self.contexts), len(number), dtype=torch.long)
        by_name.index_put_((self.context, self.named[self.perturbation]), torch.ones(len(self), dtype=torch.long), True)
        self.count = by_name[:, self.named]

    def _controls(self, responses: Responses) -> Tensor | None:
        known = [name for name in self.contexts if name in responses.controls]
        if not known or self.units.control is None:
            return None
        values = np.stack([responses.controls[name] for name in known])
        mean, spread = self.units.control
        control = torch.zeros(len(self.contexts), values.shape[1], dtype=torch.float64)
        rows = torch.tensor([self._context[name] for name in known])
        control[rows] = torch.from_numpy((values - mean) / spread)
        return control
