"""What a run does about embeddings and retrieval: the `training.*` flags as one checked object."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from state_rag.errors import StateRagError

Mode = Literal["none", "genept", "vanilla", "hidden", "differentiable"]

CHOICES: dict[str, tuple[str | None, ...]] = {
    "rag_fusion": ("replace", "residual"),
    "rag_inference": ("expected", "sample", "argmax"),
    "rag_score_scale": ("batch", "running", "none"),
    "rag_attention": (None, "bidirectional", "causal"),
    "genept_missing": ("drop", "error"),
}


@dataclass(frozen=True)
class RagSettings:
    """The flags under `training.`, spelled as published where a published flag exists.

    Attributes
    ----------
    rag
        Retrieve at all.
    use_genept
        Represent a perturbation by its embedding instead of a one-hot vector.
    retrieve_than_predict
        Choose candidates by the given embeddings; false chooses them in the encoded space of the model.
    differentiable_rag
        Let the learned selector decide, per cell, which candidates count (PT-RAG); false is attention.
    topk_rag
        Number of candidates K.
    rag_weight
        Weight of the context beside the query in hidden-space retrieval; 0 takes the context alone.
    gumbel_sparsity_loss, gumbel_sparsity_weight
        Whether, and by how much, the mean inclusion is added to the loss.
    gumbel_temperature
        Temperature of the straight-through Gumbel-Softmax (0.5 in the paper).
    check_gradients, gradient_check_interval
        Watch the gradients of each module every so many steps.
    rag_fusion
        Whether the context takes the place of cells + perturbation or is added to them.
    rag_inference
        What the selector does outside training: expected inclusion, a random draw, or the likelier choice.
    rag_score_scale
        What the selector's logits are divided by: their standard deviation in the batch, its running
        average, or nothing.
    rag_score_similarity
        Add the cosine of encoded query and candidate, with a learned weight, to the selector's score.
    rag_query_dropout
        Probability, in training, that a set's own perturbation is left out of the transformer's input (of the
        selector's context and of what residual fusion adds), so that the candidates have to tell it.
    rag_attention
        Attention of the transformer, where it shall differ from the model's own configuration.
    rag_watch
        Perturbations whose retrieved neighbours are logged at every validation.
    genept_path
        File of embeddings; None looks at the usual places.
    genept_text_width
        Width of embeddings that are made from text summaries.
    genept_missing
        What to do about perturbations without an embedding.
    """

    rag: bool = False
    use_genept: bool = False
    retrieve_than_predict: bool = False
    differentiable_rag: bool = False
    topk_rag: int = 32
    rag_weight: float = 0.0
    gumbel_sparsity_loss: bool = False
    gumbel_sparsity_weight: float = 0.1
    gumbel_temperature: float = 0.5
    check_gradients: bool = False
    gradient_check_interval: int = 100
    rag_fusion: str = "replace"
    rag_inference: str = "expected"
    rag_score_scale: str = "running"
    rag_score_similarity: bool = False
    rag_query_dropout: float = 0.0
    rag_attention: str | None = None
    rag_watch: tuple[str, ...] = ()
    genept_path: str | None = None
    genept_text_width: int = 256
    genept_missing: str = "drop"

    @classmethod
    def from_mapping(cls, flags: Mapping[str, Any]) -> "RagSettings":
        """Pick our flags out of a run's `training` section; other keys are left alone.

        Raises
        ------
        StateRagError
            If a value has the wrong type, is not among its choices, or contradicts another flag.
        """
        known = {field.name: field for field in fields(cls)}
        values = {name: _typed(name, flags[name], known[name].type) for name in known if name in flags}
        settings = cls(**values)
        settings._refuse_contradictions()
        return settings

    @property
    def mode(self) -> Mode:
        """Which of the five methods the flags describe."""
        if not self.rag:
            return "genept" if self.use_genept else "none"
        if self.differentiable_rag:
            return "differentiable"
        return "vanilla" if self.retrieve_than_predict else "hidden"

    @property
    def retrieves(self) -> bool:
        """Whether other perturbations are looked up."""
        return self.rag

    def to_dict(self) -> dict[str, Any]:
        """Return the flags as plain types."""
        return {**asdict(self), "rag_watch": list(self.rag_watch)}

    def _refuse_contradictions(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                allowed = ", ".join("null" if choice is None else choice for choice in choices)
                raise StateRagError(f"training.{name}={value} is not a choice. Use one of: {allowed}.")
        if self.differentiable_rag and not self.rag:
            raise StateRagError(
                "training.differentiable_rag=true selects among retrieved perturbations, but training.rag=false "
                "retrieves none. Set training.rag=true, or leave training.differentiable_rag out."
            )
        if self.rag and not self.use_genept:
            flag = "differentiable_rag" if self.differentiable_rag else "rag"
            raise StateRagError(
                f"training.{flag}=true finds similar perturbations by their embeddings, but "
                "training.use_genept=false provides none. Set training.use_genept=true (the default with "
                "training.rag=true), or training.rag=false for plain STATE."
            )
        if self.differentiable_rag and not self.retrieve_than_predict:
            raise StateRagError(
                "training.differentiable_rag=true takes its candidates by embedding similarity, but "
                "training.retrieve_than_predict=false asks for candidates in the encoded space. Set "
                "training.retrieve_than_predict=true for PT-RAG, or training.differentiable_rag=false for "
                "hidden-space retrieval (rag=hidden)."
            )
        if self.gumbel_sparsity_loss and not self.differentiable_rag:
            raise StateRagError(
                "training.gumbel_sparsity_loss=true penalises the selector, but training.differentiable_rag=false "
                "has none. Set training.gumbel_sparsity_loss=false, or training.differentiable_rag=true."
            )
        if self.rag_score_similarity and not self.differentiable_rag:
            raise StateRagError(
                "training.rag_score_similarity=true is about the selector's score, but with "
                "training.differentiable_rag=false there is no selector. Set training.rag_score_similarity=false, or "
                "training.differentiable_rag=true."
            )
        if not 0 <= self.rag_query_dropout < 1:
            raise StateRagError(
                f"training.rag_query_dropout={self.rag_query_dropout} is out of range. Use a number from 0 to below 1."
            )
        if self.rag and self.topk_rag < 1:
            raise StateRagError(f"training.topk_rag={self.topk_rag} retrieves nothing. Use a value of at least 1.")
        for name in ("gradient_check_interval", "genept_text_width"):
            if getattr(self, name) < 1:
                raise StateRagError(f"training.{name}={getattr(self, name)} is out of range. Use at least 1.")
        if not 0 < self.gumbel_temperature < math.inf:
            raise StateRagError(
                f"training.gumbel_temperature={self.gumbel_temperature} is out of range. Use a finite number above 0."
            )
        for name in ("gumbel_sparsity_weight", "rag_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise StateRagError(
                    f"training.{name}={getattr(self, name)} is out of range. Use a finite number of at least 0."
                )


def _typed(name: str, value: Any, annotation: Any) -> Any:
    """Return `value` as its flag's type, or say what the flag takes."""
    wanted = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if value is None and "None" in wanted:
        return None
    if wanted == "bool" and isinstance(value, bool):
        return value
    if wanted == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if wanted == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if wanted.startswith("str") and isinstance(value, str):
        return value
    if wanted.startswith("tuple") and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return tuple(value)
    takes = {"bool": "true or false", "int": "a whole number", "float": "a number"}.get(wanted, "text")
    if wanted.startswith("tuple"):
        takes = "a list of names, such as [WARS,AARS]"
    raise StateRagError(f"training.{name}={value!r} is not usable: it takes {takes}.")
