"""What a run does about embeddings and retrieval: the `training.*` flags as one checked object.

All that is known of a flag stands here: `RagSettings` declares it, `CONTRADICTIONS` says which others it needs.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from state_rag.errors import StateRagError
from state_rag.flag import Flag, flag, flags_of, said
from state_rag.retrieval.modes import MODES, mode_of

Mode = str
"""A method: `none`, `genept`, or the name of a way to retrieve in `state_rag.retrieval.modes`."""


TEXT = "text"
"""Name of the source that `genept_path` gives."""
USUAL = "genept"
"""A source that needs no file: the embeddings at a usual place."""
RESERVED = ("responses", "same perturbation elsewhere")
"""What likeness goes by beside sources, in the evidence engine."""


def modes() -> tuple[Mode, ...]:
    """Return every method there is."""
    return ("none", "genept", *MODES)


@dataclass(frozen=True)
class RagSettings:
    """The flags under `training.`, spelled as published where a published flag exists.

    What each means, its default and its allowed values: `state-rag settings`, or the declarations below.
    """

    rag: bool = flag(False, "Retrieve: look up similar perturbations for every cell set.", fork=False)
    use_genept: bool = flag(
        False,
        "Represent a perturbation by its embedding instead of a one-hot vector.",
        follows="rag",
        fork=False,
    )
    retrieve_than_predict: bool = flag(
        False,
        "Choose candidates by the given embeddings; false chooses them in the encoded space of the model.",
        follows="rag",
        fork=False,
    )
    differentiable_rag: bool = flag(
        False,
        "Let the learned selector decide, for each cell, which candidates count (PT-RAG); false is attention.",
        follows="rag",
        fork=False,
    )
    rag_mode: str | None = flag(
        None,
        "Way to retrieve, by name; null: the one that the three flags above mean.",
        choices=lambda: (None, *MODES),
    )
    topk_rag: int = flag(32, "Number of candidates, K.", at_least=1, only_if="rag", fork=5)
    rag_weight: float = flag(
        0.0,
        "Weight of the context beside the query in hidden-space retrieval; 0 takes the context alone.",
        at_least=0,
        fork=0.0,
    )
    gumbel_sparsity_loss: bool = flag(
        False,
        "Add lambda times the mean inclusion to the loss.",
        follows="differentiable_rag",
        fork=False,
    )
    gumbel_sparsity_weight: float = flag(0.1, "Lambda of the sparsity loss.", at_least=0, fork=0.01)
    gumbel_temperature: float = flag(
        0.5, "Temperature of the straight-through Gumbel-softmax (0.5 in the paper).", above=0, fork=0.5
    )
    check_gradients: bool = flag(
        False, "Log the gradient norm of each module, and warn of one that has vanished or is not finite.", fork=False
    )
    gradient_check_interval: int = flag(100, "Steps between two looks at the gradients.", at_least=1)
    rag_fusion: str = flag(
        "replace",
        "Whether the context takes the place of cells + perturbation, or is added to them (residual).",
        choices=("replace", "residual"),
        fork_always="replace",
    )
    rag_inference: str = flag(
        "expected",
        "What the selector does outside training: expected inclusion, a random draw (sample), or the likelier choice "
        "(argmax).",
        choices=("expected", "sample", "argmax"),
        fork_always="sample",
    )
    rag_score_scale: str = flag(
        "running",
        "What the selector's logits are divided by: their standard deviation in the batch, its running average, or "
        "nothing (none).",
        choices=("batch", "running", "none"),
        fork_always="batch",
    )
    rag_score_similarity: bool = flag(
        False,
        "Add the cosine of encoded query and candidate, with a learned weight, to the selector's score.",
    )
    rag_query_dropout: float = flag(
        0.0,
        "Probability, in training, that a set's own perturbation is left out of the transformer's input (of the "
        "selector's context and of what residual fusion adds), so that the candidates have to tell it.",
        at_least=0,
        below=1,
    )
    rag_attention: str | None = flag(
        None,
        "Attention of the transformer, where it shall differ from the model's own configuration.",
        choices=(None, "bidirectional", "causal"),
    )
    rag_evidence: str = flag(
        "none",
        "Bring the predicted cells of each set to the mean that the evidence engine predicts: never (none), when "
        "predicting (predict), or in training too (train), so that the network learns the shape around it.",
        choices=("none", "predict", "train"),
    )
    rag_watch: tuple[str, ...] = flag(
        (),
        "Perturbations, such as [WARS,AARS], whose retrieved neighbours are logged in every cell line at each "
        "validation.",
    )
    rag_wait_minutes: float = flag(
        30.0,
        "Where several processes train one model: how many minutes one waits for the others before training ends with "
        "an error.",
        above=0,
    )
    genept_path: str | None = flag(None, "File of embeddings; null looks at the usual places.")
    rag_sources: tuple[str, ...] = flag(
        (),
        "All that is known of perturbations, where it is more than one table: a name and a file each, such as "
        "[genept=FILE,reactome=FILE]. Files as for `state-rag evidence fit --source`; `genept` alone is the file at a "
        "usual place, and genept_path beside it is one more source, `text`.",
        form="a list of NAME=FILE",
    )
    genept_text_width: int = flag(256, "Width of embeddings that are made from text summaries.", at_least=1)
    genept_missing: str = flag(
        "drop",
        "What to do about perturbations without an embedding: leave their cells out (drop), or refuse (error).",
        choices=("drop", "error"),
        fork_always="drop",
    )

    @classmethod
    def from_mapping(cls, flags: Mapping[str, Any]) -> "RagSettings":
        """Pick our flags out of a run's `training` section; other keys are left alone.

        Raises
        ------
        StateRagError
            If a value has the wrong type, is not among its choices or out of range, or contradicts another flag.
        """
        settings = cls(**{name: known.typed(flags[name]) for name, known in FLAGS.items() if name in flags})
        settings._refuse()
        return settings

    @property
    def mode(self) -> Mode:
        """Which method the flags describe, one of `modes`."""
        if not self.rag:
            return "genept" if self.use_genept else "none"
        return self.rag_mode or mode_of(vars(self))

    @property
    def retrieves(self) -> bool:
        """Whether other perturbations are looked up."""
        return self.rag

    @property
    def sources(self) -> dict[str, str | None]:
        """Source of knowledge -> its file, None for one at a usual place; a single `text` without `rag_sources`."""
        text = {TEXT: self.genept_path} if self.genept_path is not None or not self.rag_sources else {}
        return {**text, **dict(map(_source, self.rag_sources))}

    @property
    def anchors(self) -> bool:
        """Whether predicted cells are brought to the mean that the evidence engine predicts."""
        return self.rag_evidence != "none"

    def to_dict(self) -> dict[str, Any]:
        """Return the flags as plain types."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def _refuse(self) -> None:
        """Refuse values that are not allowed, then flags that contradict each other."""
        for name, known in FLAGS.items():
            if known.choices is not None:
                known.check(getattr(self, name))
        for contradiction in CONTRADICTIONS:
            contradiction.check(self)
        _refuse_sources(self.rag_sources, self.genept_path)
        if self.rag_mode is not None:
            self._refuse_another_mode(self.rag_mode)
        for name, known in FLAGS.items():
            if known.only_if is None or getattr(self, known.only_if):
                known.check(getattr(self, name))

    def _refuse_another_mode(self, mode: str) -> None:
        for name, wanted in MODES[mode].flags.items():
            if getattr(self, name) != wanted:
                other, needed = str(not wanted).lower(), str(wanted).lower()
                raise StateRagError(
                    f"training.rag_mode={mode} and training.{name}={other} mean different ways to retrieve. Set "
                    f"training.{name}={needed}, or leave training.rag_mode out."
                )


FLAGS: dict[str, Flag] = flags_of(RagSettings)
"""Every flag by its name."""


@dataclass(frozen=True)
class Needs:
    """A flag that makes no sense without another one.

    Attributes
    ----------
    name, other
        `name` switched on needs `other` true.
    does, without
        Why: what the first does, and what there is not without the other.
    remedy
        What to set, after "Set ".
    told
        How `name` is called in the message, where it is not a flag itself.
    """

    name: str
    other: str
    does: str
    without: str
    remedy: str
    told: str | None = None

    def check(self, settings: RagSettings) -> None:
        """Refuse settings that contradict it.

        Raises
        ------
        StateRagError
            Naming both flags and the remedy.
        """
        value = getattr(settings, self.name)
        if value and not getattr(settings, self.other):
            name = self.told or self.name
            shown = said(getattr(settings, name))
            raise StateRagError(
                f"training.{name}={shown} {self.does}, but training.{self.other}=false {self.without}. "
                f"Set {self.remedy}"
            )


_EMBEDDINGS = (
    "finds similar perturbations by their embeddings",
    "provides none",
    "training.use_genept=true (the default with training.rag=true), or training.rag=false for plain STATE.",
)

CONTRADICTIONS = (
    Needs(
        "differentiable_rag",
        "rag",
        "selects among retrieved perturbations",
        "retrieves none",
        "training.rag=true, or leave training.differentiable_rag out.",
    ),
    Needs(
        "rag_mode",
        "rag",
        "is a way to retrieve",
        "retrieves nothing",
        "training.rag=true, or leave training.rag_mode out.",
    ),
    Needs("differentiable_rag", "use_genept", *_EMBEDDINGS),
    Needs("rag", "use_genept", *_EMBEDDINGS),
    Needs(
        "differentiable_rag",
        "retrieve_than_predict",
        "takes its candidates by embedding similarity",
        "asks for candidates in the encoded space",
        "training.retrieve_than_predict=true for PT-RAG, or training.differentiable_rag=false for hidden-space "
        "retrieval (rag=hidden).",
    ),
    Needs(
        "gumbel_sparsity_loss",
        "differentiable_rag",
        "penalises the selector",
        "has none",
        "training.gumbel_sparsity_loss=false, or training.differentiable_rag=true.",
    ),
    Needs(
        "anchors",
        "use_genept",
        "goes by what similar perturbations did",
        "trains plain STATE, which is not changed",
        "training.use_genept=true, or training.rag_evidence=none. `state-rag evidence fit` needs no network.",
        told="rag_evidence",
    ),
    Needs(
        "rag_sources",
        "use_genept",
        "represents perturbations by what is known of them",
        "represents them by a one-hot vector",
        "training.use_genept=true, or leave training.rag_sources out. `state-rag evidence fit --source` needs no "
        "network.",
    ),
    Needs(
        "rag_score_similarity",
        "differentiable_rag",
        "is about the selector's score",
        "has no selector",
        "training.rag_score_similarity=false, or training.differentiable_rag=true.",
    ),
)
"""Flags that need others, in the order in which a contradiction is told."""


def preset_defaults() -> dict[str, Any]:
    """Return what each flag is by default on a command line: a value, or a reference to the flag that it follows."""
    return {
        name: f"${{training.{known.follows}}}" if known.follows else _plain(known.default)
        for name, known in FLAGS.items()
    }


def follow_preset() -> dict[str, str]:
    """Return the flags of `training.` as references to the chosen preset."""
    return {name: f"${{rag.{name}}}" for name in FLAGS}


def _source(text: str) -> tuple[str, str | None]:
    """Return name and file of `NAME=FILE`, or of `genept`."""
    name, mark, path = (part.strip() for part in text.partition("="))
    return name, path if mark else None


def _refuse_sources(given: tuple[str, ...], text: str | None) -> None:
    """Refuse sources without a name or a file, and names that are taken or cannot stand in a table."""
    seen = set() if text is None else {TEXT}
    for one in given:
        name, path = _source(one)
        if not path and (one != USUAL):
            raise StateRagError(
                f"training.rag_sources={said(given)}: {one!r} names no file. Write NAME=FILE, such as "
                f"reactome=reactome.gmt.gz; only {USUAL} may stand alone, for embeddings at a usual place."
            )
        if not re.fullmatch(r"[\w.-]+", name) or name in RESERVED:
            raise StateRagError(
                f"training.rag_sources={said(given)}: {name!r} is no name for a source. Use letters, digits, '.', '_' "
                f"and '-', and none of {', '.join(RESERVED)}."
            )
        if name in seen:
            taken = "that of training.genept_path" if name == TEXT and text is not None else "given twice"
            raise StateRagError(f"training.rag_sources={said(given)}: the name {name!r} is {taken}. Choose another.")
        seen.add(name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
