"""cell-load's data module, limited to perturbations we can represent and to a number of test sets."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from cell_load.data_modules import PerturbationDataModule

logger = logging.getLogger(__name__)


class LimitedDataModule(PerturbationDataModule):
    """A data module whose cells have one of `keep` as their perturbation, or are controls.

    STATE constructs data modules from a configuration or a saved state; what we add to one is therefore
    bound to a subclass, see `limited_to`.
    """

    keep: ClassVar[frozenset[str] | None] = None
    max_test_sets: ClassVar[int | None] = None
    toml: ClassVar[str | None] = None
    test_loader: ClassVar[Callable[[Any], Any] | None] = None

    @classmethod
    def limited_to(
        cls,
        keep: Collection[str] | None = None,
        *,
        max_test_sets: int | None = None,
        toml: str | Path | None = None,
        test_loader: Callable[[Any], Any] | None = None,
    ) -> type["LimitedDataModule"]:
        """Return a subclass that leaves out cells of other perturbations.

        Parameters
        ----------
        keep
            Perturbations to keep besides the control; None keeps all.
        max_test_sets
            At most so many sets in test mode, one control set of each cell line among them.
        toml
            Split file that takes the place of the one a run was saved with.
        test_loader
            Is given a loader of test sets and returns what takes its place.
        """
        bound = {
            "keep": None if keep is None else frozenset(keep),
            "max_test_sets": max_test_sets,
            "toml": None if toml is None else str(toml),
            "test_loader": None if test_loader is None else staticmethod(test_loader),
        }
        return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__, **bound})

    def __init__(self, toml_config_path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(type(self).toml or toml_config_path, *args, **kwargs)

    def _setup_global_maps(self) -> None:
        super()._setup_global_maps()
        keep = type(self).keep
        if keep is not None:
            rows: dict[str, Any] = self.pert_onehot_map or {}  # type: ignore[has-type]
            self.pert_onehot_map = {name: row for name, row in rows.items() if name in keep | {self.control_pert}}

    def _process_celltype(self, ds, celltype, ct_indices, ctrl_indices, pert_indices, cache, *rest, **named):
        keep = type(self).keep
        if keep is not None:
            codes = [code for code, name in enumerate(cache.pert_categories) if str(name) in keep]
            pert_indices = pert_indices[np.isin(cache.pert_codes[pert_indices], codes)]
        return super()._process_celltype(ds, celltype, ct_indices, ctrl_indices, pert_indices, cache, *rest, **named)

    def _create_dataloader(self, datasets, test: bool = False, batch_size: int | None = None):
        loader = super()._create_dataloader(datasets, test=test, batch_size=batch_size)
        limit = type(self).max_test_sets
        if test and limit is not None:
            _shorten(loader.batch_sampler, limit)
        wrap = type(self).test_loader
        return wrap(loader) if test and wrap is not None else loader


def _shorten(sampler: Any, limit: int) -> None:
    """Keep `limit` of a test sampler's sets: first one control set of each cell line, then the others in order."""
    starts = np.cumsum([0] + [len(subset) for subset in sampler.dataset.datasets])
    controls: dict[str, int] = {}
    others: list[int] = []
    for place, sentence in enumerate(sampler.sentences):
        which = int(np.searchsorted(starts, sentence[0], side="right")) - 1
        subset = sampler.dataset.datasets[which]
        cell = subset.indices[sentence[0] - starts[which]]
        cache = subset.dataset.metadata_cache
        line = str(cache.cell_type_categories[cache.cell_type_codes[cell]])
        if cache.control_mask[cell] and line not in controls:
            controls[line] = place
        else:
            others.append(place)
    chosen = sorted([*controls.values(), *others[: max(limit - len(controls), 0)]])
    if len(chosen) < len(sampler.sentences):
        logger.info("Predicting %d of %d cell sets (--max-batches %d).", len(chosen), len(sampler.sentences), limit)
    sampler.sentences = [sampler.sentences[place] for place in chosen]
    sampler.batches = sampler._create_batches()
    sampler.tot_num = sum(len(sentence) for sentence in sampler.sentences)
