"""A fitted engine as plain data: `settings`, a tree of numbers and texts that JSON can hold, and `tensors` by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.combinations.covariances import Rule
from state_rag.evidence.combinations.measured import Judged, Learned
from state_rag.evidence.fusion import Fusion
from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.own_gene import OwnGene
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Source
from state_rag.evidence.training import Settings, Trained
from state_rag.evidence.treatments import Axes
from state_rag.evidence.trust.expected import Calibrated
from state_rag.evidence.trust.gene_caller import GeneCaller
from state_rag.evidence.trust.model import TrustModel
from state_rag.evidence.units import Units

VERSION = 1
"""Of the layout."""

Combined = tuple[Responses | None, Mapping[str, tuple[str, ...]], Learned]
"""Responses of combinations, members of each, and what they taught."""

_TAUGHT = {"combinations": "taught", "members": "taught_members"}
"""Part of what combinations taught -> how its tensors' names begin."""


@dataclass(frozen=True)
class Parts:
    """All of which an engine consists.

    Attributes
    ----------
    settings, responses, sources, trained, calibrated, callers
        As of the engine.
    combinations
        Their responses, members, and what they taught.
    axes
        What labels tell of modes, doses and times; None where they are names.
    own_apart, units
        As of the bank.
    """

    settings: Settings
    responses: Responses
    sources: Sequence[Source]
    trained: dict[str, Trained]
    calibrated: dict[str, Calibrated]
    callers: dict[str, GeneCaller]
    combinations: Combined
    axes: Axes | None
    own_apart: bool
    units: Units


def pack(parts: Parts) -> dict[str, Any]:
    """Return `{"settings": ..., "tensors": ...}`: numbers, texts and tensors."""
    responses = parts.responses
    combined, members, taught = parts.combinations
    tensors = _tensors_of(responses, "responses")
    if combined is not None:
        tensors |= _tensors_of(combined, "combined")
    for part, prefix in _TAUGHT.items():
        tensors |= {
            f"{prefix}.{name}": torch.from_numpy(values) for name, values in vars(getattr(taught, part)).items()
        }
    for number, mean in enumerate(responses.controls.values()):
        tensors[f"controls.{number}"] = torch.from_numpy(mean)
    for number, source in enumerate(parts.sources):
        tensors[f"sources.{number}"] = source.vectors
        if source.basis is not None:
            tensors[f"sources.{number}.basis"] = source.basis
    learned = {}
    for use, found in parts.trained.items():
        numbers = {"weights": found.weights.state_dict()}
        if found.fusion is not None:
            numbers["fusion"] = found.fusion.state_dict()
        if found.own_gene is not None:
            numbers["own_gene"] = {"slopes": found.own_gene.slopes}
        for part, values in numbers.items():
            tensors.update({f"trained.{use}.{part}.{name}": value for name, value in values.items()})
        learned[use] = {
            "fusion": found.fusion is not None,
            "estimate": found.estimate,
            "calibration": found.calibration,
            "scores": found.scores,
            "own_gene_contexts": None if found.own_gene is None else found.own_gene.n_contexts,
        }
    about = {
        "version": VERSION,
        "settings": {**asdict(parts.settings), "powers": list(parts.settings.powers)},
        **_labels_of(responses),
        "genes": list(responses.genes),
        "controls": list(responses.controls),
        "sources": [source.name for source in parts.sources],
        "source_names": list(parts.sources[0].names) if parts.sources else [],
        "trained": learned,
        "calibrated": {use: found.conditions for use, found in parts.calibrated.items()},
        "callers": list(parts.callers),
        "combined": None if combined is None else _labels_of(combined),
        "members": {name: list(its) for name, its in members.items()},
        "rule": asdict(taught.rule),
        "own_apart": parts.own_apart,
        "units": asdict(parts.units),
    }
    if parts.axes is not None:
        about |= {"treated": True, "axes": parts.axes.to_dict()}
    for use, one in parts.calibrated.items():
        for name, values in one.model.arrays.items() if one.model is not None else ():
            tensors[f"trust.{use}.{name}"] = torch.from_numpy(values)
    for use, caller in parts.callers.items():
        tensors |= {f"calls.{use}.{name}": torch.from_numpy(values) for name, values in caller.arrays.items()}
    return {"settings": about, "tensors": {name: value.detach().clone() for name, value in tensors.items()}}


def unpack(state: Mapping[str, Any]) -> Parts:
    """Return what `pack` was given; nothing calibrated, called or combined for a state from before there was such.

    Raises
    ------
    StateRagError
        If the state is of another version, or lacks a part.
    """
    about = state.get("settings") or {}
    if about.get("version") != VERSION:
        raise StateRagError(
            f"evidence: the state is of version {about.get('version')}, this program reads {VERSION}; fit it again."
        )
    tensors = state["tensors"]
    try:
        settings = Settings(**{**about["settings"], "powers": tuple(about["settings"]["powers"])})
        sources = [
            Source(name, tuple(about["source_names"]), tensors[f"sources.{n}"], tensors.get(f"sources.{n}.basis"))
            for n, name in enumerate(about["sources"])
        ]
        axes = Axes.from_dict(about["axes"]) if about.get("treated") else None
        trained = trained_in(about["trained"], tensors, settings, len(sources), axes)
        calibrated = {use: _calibrated(use, count, tensors) for use, count in about.get("calibrated", {}).items()}
        callers = {use: GeneCaller.of(_of(f"calls.{use}.", tensors)) for use in about.get("callers", ())}
        responses = _responses(about, about, tensors, "responses")
        apart = bool(about.get("own_apart"))  # runs from before take own genes like any other
        combinations = _combinations(about, tensors)
        # runs from before took those of all that they knew, whatever they had been fitted on
        units = Units.of_dict(about["units"]) if "units" in about else Units.of(responses, combinations[0])
        return Parts(settings, responses, sources, trained, calibrated, callers, combinations, axes, apart, units)
    except (KeyError, RuntimeError) as error:
        raise StateRagError(f"evidence: a part of the state is missing ({error}); fit it again.") from error


def _tensors_of(responses: Responses, prefix: str) -> dict[str, Tensor]:
    parts = {name: getattr(responses, name) for name in ("effects", "cells", "variance", "changes")}
    return {f"{prefix}.{name}": torch.from_numpy(values) for name, values in parts.items() if values is not None}


def _labels_of(responses: Responses) -> dict[str, list[str]]:
    return {"contexts": list(responses.contexts), "perturbations": list(responses.perturbations)}


def _combinations(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Combined:
    labels = about.get("combined")
    if labels is None:
        return None, {}, Learned(Rule())
    # runs from before were not judged on members
    judged = {part: Judged(**found) for part, prefix in _TAUGHT.items() if (found := _of(f"{prefix}.", tensors))}
    taught = Learned(Rule(**about["rule"]), **judged)
    members = {name: tuple(parts) for name, parts in about["members"].items()}
    return _responses(labels, about, tensors, "combined"), members, taught


def _responses(
    labels: Mapping[str, Any], about: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str
) -> Responses:
    def optional(name: str) -> np.ndarray | None:
        return tensors[f"{prefix}.{name}"].numpy() if f"{prefix}.{name}" in tensors else None

    controls = {name: tensors[f"controls.{number}"].numpy() for number, name in enumerate(about["controls"])}
    return Responses(
        tensors[f"{prefix}.effects"].numpy(),
        labels["contexts"],
        labels["perturbations"],
        about["genes"],
        cells=optional("cells"),
        variance=optional("variance"),
        controls=controls,
        changes=optional("changes"),
        treated=bool(about.get("treated")),
    )


def _calibrated(use: str, conditions: int, tensors: Mapping[str, Tensor]) -> Calibrated:
    arrays = _of(f"trust.{use}.", tensors)
    return Calibrated(conditions, TrustModel.of(arrays) if arrays else None)


def _of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value.numpy() for key, value in tensors.items() if key.startswith(prefix)}


def trained_in(
    about: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    settings: Settings,
    n_sources: int,
    axes: Axes | None = None,
) -> dict[str, Trained]:
    """Return use -> what was learned, from that part of a state and its tensors.

    Raises
    ------
    KeyError, RuntimeError
        If a part is missing, or of another shape.
    """
    n_kernels = 2 * len(settings.powers) * (n_sources + 1)
    return {use: _trained(use, found, tensors, n_kernels, axes) for use, found in about.items()}


def _trained(
    use: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor], n_kernels: int, axes: Axes | None
) -> Trained:
    def part(name: str) -> dict[str, Tensor]:
        prefix = f"trained.{use}.{name}."
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    weights = KernelWeights(n_kernels, axes)
    # runs from before there were bands have one noise for all
    weights.load_state_dict({"bands": torch.zeros_like(weights.bands), **part("weights")})
    fusion = None
    if about["fusion"]:
        fusion = Fusion()
        fusion.load_state_dict(_widened(part("fusion"), fusion))
        fusion.requires_grad_(False)
    contexts = about.get("own_gene_contexts")  # runs from before have none
    return Trained(
        weights.requires_grad_(False),
        fusion,
        about["estimate"],
        about["calibration"],
        dict(about["scores"]),
        None if contexts is None else OwnGene(part("own_gene")["slopes"], contexts),
    )


def _widened(saved: dict[str, Tensor], fusion: Fusion) -> dict[str, Tensor]:
    """Return a fusion's tensors with columns for features that came after it was learned; it looks at none of them."""
    wanted, found = fusion.state_dict(), dict(saved)
    for name, fill in (("network.0.weight", 0.0), ("deviation", 1.0)):
        lacking = wanted[name].shape[-1] - found[name].shape[-1]
        found[name] = torch.nn.functional.pad(found[name], (0, max(lacking, 0)), value=fill)
    return found
