"""RagStateTransition: STATE's set model with retrieval between perturbation encoder and transformer.

PT-RAG (arXiv 2603.07233). STATE adds the encoded perturbation to the encoded cells; here a perturbation is
its embedding, and what reaches the transformer may be a context made of similar perturbations. Everything
else, from losses to decoders, is STATE's. A run's knowledge (names and embeddings) travels in its checkpoints
under ``checkpoint["state_rag"]``.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from state.tx.models.state_transition import StateTransitionPerturbationModel
from torch import Tensor

from state_rag.anchor import Anchor
from state_rag.bound import Bound
from state_rag.cell_sets import CellSets, Pass, read_sets
from state_rag.checkpoint import CHECKPOINT_KEY, FORMAT, extends, pack, read_knowledge, without_numpy
from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.modes import MODES
from state_rag.retrieval.retriever import Base, Retrieved, Retriever
from state_rag.retrieval.trace import RetrievalTrace
from state_rag.settings import RagSettings
from state_rag.together import TrainedTogether
from state_rag.tracking.callback import RetrievalTracker
from state_rag.tracking.gradients import GradientCheck
from state_rag.tracking.observation import Observation


class RagStateTransition(Bound, TrainedTogether, StateTransitionPerturbationModel):
    """STATE with perturbation embeddings and, unless ``rag=false``, retrieval.

    Takes STATE's own arguments and the flags of `state_rag.settings.RagSettings`. Its perturbation encoder
    reads embeddings of width D whatever `pert_dim` is passed.

    Raises
    ------
    StateRagError
        From `forward`, if a set mixes perturbations or names one without an embedding.

    See Also
    --------
    RagStateTransition.bound_to : give a class its knowledge before STATE constructs it.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, pert_dim: int, **kwargs: Any) -> None:
        settings = RagSettings.from_mapping(kwargs)
        knowledge = type(self).bound_knowledge
        if knowledge is not None:
            pert_dim = knowledge.width()
        # STATE's default, but by name: a module among the hyperparameters would make every checkpoint a pickle.
        kwargs.setdefault("loss_fn", "mse")
        # By their names here, since Lightning takes the hyperparameters from these variables.
        kwargs = without_numpy(kwargs)
        input_dim, hidden_dim, output_dim, pert_dim = map(int, (input_dim, hidden_dim, output_dim, pert_dim))
        super().__init__(input_dim=input_dim, hidden_dim=hidden_dim, output_dim=output_dim, pert_dim=pert_dim, **kwargs)
        self.settings = settings
        self.knowledge: Knowledge | None = None
        self.trained_on = type(self).bound_data
        self.sources = type(self).bound_sources
        self.anchor: Anchor | None = None
        if type(self).bound_evidence is not None:
            self._set_anchor(type(self).bound_evidence)
        # STATE without this plugin refuses a checkpoint with an entry that it does not know.
        self.register_buffer("state_rag_format", torch.tensor(FORMAT))
        self._part: str | None = None
        if settings.retrieves:
            mode = MODES[settings.mode]
            retriever = mode.load().built_for(
                settings, hidden_dim=hidden_dim, embedding_dim=pert_dim, dropout=self.dropout
            )
            self.add_module(mode.part, retriever)
            self._part = mode.part
        self.gradient_check = GradientCheck(settings.gradient_check_interval) if settings.check_gradients else None
        self._pass: Pass | None = None
        self.observer: Callable[[Observation], None] | None = None
        self.quiet = False
        if knowledge is not None:
            self.set_knowledge(knowledge)

    @property
    def retriever(self) -> Retriever | None:
        """The part that retrieves, as `state_rag.retrieval.modes` names it; None where nothing is retrieved."""
        return None if self._part is None else getattr(self, self._part)

    @property
    def controls(self) -> frozenset[str]:
        """Names that stand for no perturbation: their embedding is zero and nothing is retrieved for them."""
        return type(self).bound_controls | {str(self.control_pert)}

    def set_knowledge(self, knowledge: Knowledge) -> None:
        """Give the model its base, and look up everybody's candidates once.

        Raises
        ------
        StateRagError
            If the width of the embeddings is not the model's, or K exceeds the other perturbations.
        """
        if knowledge.width() != self.pert_dim:
            raise StateRagError(
                f"The embeddings are {knowledge.width()} wide, but this model was built for {self.pert_dim}. "
                "Use the embeddings that it was trained with."
            )
        asked = list(self.settings.sources)
        if self.settings.retrieves and len(knowledge.block_names) != len(asked):
            raise StateRagError(
                f"The knowledge has the sources {', '.join(knowledge.block_names)}, but this model was built for "
                f"{', '.join(asked)}. Use those that it was trained with."
            )
        others = knowledge.n_candidates - 1
        if self.settings.retrieves and self.settings.topk_rag > others:
            raise StateRagError(
                f"training.topk_rag={self.settings.topk_rag} exceeds the {others} other perturbations of the base. "
                "Set it to that or less."
            )
        # A copy: the models of one bound class may lie on different devices, or in different precisions.
        self.knowledge = copy.deepcopy(knowledge).to(self.state_rag_format.device)
        if self.retriever is not None:
            self.retriever.prepare(self.knowledge, self.settings.topk_rag)
        # DistributedDataParallel would send buffers to all processes before every step; these never change.
        fixed = [name for name, _ in self.named_buffers() if name.startswith("knowledge.")]
        self._ddp_params_and_buffers_to_ignore = fixed

    def forward(self, batch: dict[str, Any], padded: bool = True) -> Any:
        """Predict cells of each set.

        Parameters
        ----------
        batch
            ``ctrl_cell_emb`` [B*S, input_dim], ``pert_name`` (B*S names, all cells of a set alike), and what
            STATE reads besides. ``pert_emb`` is not used: the knowledge provides it.
        padded
            Whether all sets have `cell_sentence_len` cells; false takes the batch as one set of any length.

        Returns
        -------
        torch.Tensor or tuple
            What STATE returns: [B*S, output_dim], with the confidence where it is switched on.
        """
        if self.knowledge is None:
            raise StateRagError(
                "This model has no knowledge base: load it from a checkpoint of state-rag, or call set_knowledge."
            )
        size = self.cell_sentence_len if padded else None
        sets = read_sets(batch, self.knowledge, self.controls, input_dim=self.input_dim, size=size)
        embedding = self.knowledge.rows(sets.rows)
        self._pass = running = Pass(sets)
        try:
            # A view: no embedding is repeated for the cells of a set.
            pert = embedding[:, None, :].expand(-1, sets.basal.shape[1], -1)
            found = super().forward({**batch, "pert_emb": pert}, padded=padded)
        finally:
            running.end()
        if self.settings.rag_evidence != "train":
            return found
        cells, *rest = found if isinstance(found, tuple) else (found,)
        cells = self._anchored(batch, cells, sets)
        return (cells, *rest) if rest else cells

    def _set_anchor(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            raise StateRagError("The checkpoint lacks the evidence that its run anchors cells with. Train again.")
        self.anchor = Anchor.from_state(state)
        self.anchor.context_of = type(self).context_of
        if (sink := type(self).anchor_sink) is not None:
            sink(self.anchor)

    def _anchored(self, batch: Mapping[str, Any], cells: Tensor, sets: CellSets) -> Tensor:
        """Bring each set's predicted cells [B*S, D] to the mean that the evidence engine predicts."""
        assert self.anchor is not None
        count, size = sets.basal.shape[:2]
        contexts = self.anchor.contexts(batch, count)
        names = [self.anchor.control if name in self.controls else name for name in sets.names]
        inside = cells.reshape(count, size, -1)
        return self.anchor.bring(inside, contexts, names, sets.basal).reshape(cells.shape)

    def encode_perturbation(self, pert: Tensor) -> Tensor:
        """Encode embeddings; inside `forward`, return what makes the transformer's input when cells are added.

        Parameters
        ----------
        pert
            Embeddings, equal for all cells of a set. [B, S, D]

        Returns
        -------
        torch.Tensor
            [B, 1, H] without retrieval, [B, S, H] with it.
        """
        running = self._pass
        if running is None or running.sets is None:
            return super().encode_perturbation(pert)
        query = self.pert_encoder(pert[:, 0])
        if not self.settings.retrieves:
            return query[:, None, :]
        # STATE adds the encoded cells to what is returned here. Adding and taking away in float32 keeps the
        # context exact under mixed precision; the cells are encoded once and handed back below.
        cells = super().encode_basal_expression(running.sets.basal).float()
        running.cells = cells
        return self._retrieve(running, running.sets, cells, query.float())

    def encode_basal_expression(self, expr: Tensor) -> Tensor:
        """Encode control cells [B, S, input_dim] to [B, S, H], once in a forward pass."""
        if self._pass is None or self._pass.cells is None:
            return super().encode_basal_expression(expr)
        return self._pass.cells

    def _retrieve(self, running: Pass, sets: CellSets, cells: Tensor, query: Tensor) -> Tensor:
        """Return what STATE adds to encoded cells [B, S, H] for encoded perturbations [B, H]: [B, S or 1, H]."""
        retriever = self._retriever
        if not sets.places:
            self._note(running, sets, retriever.nothing(cells))
            # Every parameter takes part in every step, as distributed training needs.
            return query[:, None, :] + retriever.zero_weight_terms()
        whole = len(sets.places) == len(sets.names)
        chosen = None if whole else torch.tensor(sets.places).to(cells.device, non_blocking=True)

        def take(tensor: Tensor) -> Tensor:
            return tensor if chosen is None else tensor[chosen]

        told = self._draw_told(len(sets.places), cells)
        rows = sets.rows if whole else sets.rows[sets.places]
        found = retriever(take(cells), take(query), rows, self._base, told=told)
        self._note(running, sets, found)
        if self.settings.rag_fusion == "residual":
            shown = take(query) if told is None else take(query) * told[:, None]
            added = found.context + shown[:, None, :]
        else:
            added = found.context - take(cells)
        if chosen is None:
            return added
        return query[:, None, :].expand_as(cells).index_copy(0, chosen, added.to(query.dtype))

    def _draw_told(self, count: int, like: Tensor) -> Tensor | None:
        """Return [count], 0 for sets whose own perturbation the transformer shall not see; None: it sees all."""
        dropout = self.settings.rag_query_dropout
        if not self.training or not dropout:
            return None
        return torch.empty(count, dtype=like.dtype, device=like.device).bernoulli_(1 - dropout)

    @property
    def _retriever(self) -> Retriever:
        assert self.retriever is not None
        return self.retriever

    @property
    def _base(self) -> Base:
        assert self.knowledge is not None
        return Base(self.knowledge, self.pert_encoder)

    def _note(self, running: Pass, sets: CellSets, found: Retrieved) -> None:
        """Keep what training and prediction need of what was retrieved, and show it to the observer."""
        running.loss, running.logged = found.loss, found.logged
        if self.observer is not None:
            self.observer(_observed(sets, found))
        if not self.training and type(self).trace_sink is not None:
            known = self._base.knowledge.names
            running.trace = RetrievalTrace.from_tensors(
                sets.asking,
                known,
                found.candidates,
                found.similarity,
                found.weights,
                self._base.knowledge.block_names,
                found.proposed,
            )

    def training_step(self, batch: dict[str, Any], batch_idx: int, padded: bool = True) -> Tensor:
        """STATE's loss plus what the retrieval adds to it (PT-RAG, loss: lambda times the mean inclusion)."""
        with self._training_together():
            loss = super().training_step(batch, batch_idx, padded=padded)
        done, self._pass = self._pass, None
        if done is None:
            return loss
        if not self.quiet:
            for name, value in done.logged.items():
                self.log(f"train/{name}", value)
        return loss if done.loss is None else loss + done.loss

    def predict_step(self, batch: dict[str, Any], batch_idx: int, padded: bool = True, **kwargs: Any) -> dict[str, Any]:
        """STATE's prediction; what was retrieved goes to the trace sink, if there is one."""
        output = super().predict_step(batch, batch_idx, padded=padded, **kwargs)
        done, self._pass = self._pass, None
        if self.settings.anchors and self.knowledge is not None:
            self._anchor_output(batch, output, self.cell_sentence_len if padded else None)
        sink = type(self).trace_sink
        if done is not None and done.trace is not None and sink is not None:
            sink(batch, output, done.trace)
        return output

    def _anchor_output(self, batch: Mapping[str, Any], output: dict[str, Any], size: int | None) -> None:
        """Anchor what was predicted: the decoded genes where they are decoded."""
        assert self.knowledge is not None
        assert self.anchor is not None
        if self.settings.rag_evidence == "train":
            return  # done in `forward`
        sets = read_sets(batch, self.knowledge, self.controls, input_dim=self.input_dim, size=size)
        name = "pert_cell_counts_preds" if self.anchor.decoded else "preds"
        output[name] = self._anchored(batch, output[name], sets)

    @torch.no_grad()
    def retrieve_for(self, names: Sequence[str], cells: Tensor) -> Observation:
        """Retrieve for N perturbations as `forward` would, all with the same control cells, without predicting.

        Parameters
        ----------
        names
            Perturbations that the knowledge knows.
        cells
            Control cells [S, input_dim].

        Returns
        -------
        Observation
            N sets of S cells.
        """
        base, places = self._base, list(range(len(names)))
        rows = base.knowledge.index_of(names)
        query = self.pert_encoder(base.knowledge.rows(rows)).float()
        encoded = super().encode_basal_expression(cells[None]).float().expand(len(names), -1, -1)
        found = self._retriever(encoded, query, rows, base)
        return _observed(CellSets(list(names), rows, cells[None], places), found)

    @property
    def sets_are_independent(self) -> bool:
        """Whether a set's prediction depends on that set alone, so that many can be predicted in one pass."""
        known = self.retriever is None or self.retriever.depends_on_the_set_alone
        return known and self.confidence_token is None

    @property
    def watched_modules(self) -> dict[str, torch.nn.Module]:
        """The modules whose gradients are compared: what retrieves, and the transformer."""
        return {"selector": self._retriever, "backbone": self.transformer_backbone}

    def configure_callbacks(self) -> list[Any]:
        """Have retrieval logged while the model trains."""
        return [RetrievalTracker()] if self.settings.retrieves else []

    @contextmanager
    def without_retrieval(self) -> Iterator[None]:
        """Let the model run as STATE with embeddings for a while, to see what retrieval costs."""
        settings = self.settings
        self.settings = replace(settings, rag=False)
        try:
            yield
        finally:
            self.settings = settings

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at the gradients where `check_gradients` is on."""
        super().on_before_optimizer_step(optimizer)
        if self.gradient_check is not None and (norms := self.gradient_check(self, self.global_step)):
            # Not through `log`, which is heard at logging steps only, whatever interval was asked for.
            for logger in self.loggers:
                logger.log_metrics(norms, step=self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add names, embeddings and flags, so that a checkpoint needs no other file."""
        super().on_save_checkpoint(checkpoint)
        if self.knowledge is not None:
            evidence = None if self.anchor is None else self.anchor.to_state()
            checkpoint[CHECKPOINT_KEY] = pack(self.knowledge, self.settings, self.trained_on, evidence, self.sources)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the knowledge from the checkpoint, unless the class was bound to some that contains it."""
        super().on_load_checkpoint(checkpoint)
        saved = read_knowledge(checkpoint)
        if self.trained_on is None:
            self.trained_on = checkpoint[CHECKPOINT_KEY].get("data")
        if self.sources is None:
            self.sources = checkpoint[CHECKPOINT_KEY].get("sources")
        if self.settings.anchors and self.anchor is None:
            self._set_anchor(checkpoint[CHECKPOINT_KEY].get("evidence"))
        if self.knowledge is None or not extends(self.knowledge, saved):
            self.set_knowledge(saved)


def _observed(sets: CellSets, found: Retrieved) -> Observation:
    """Return what was retrieved as an observer sees it, without gradient."""
    scores = None if found.scores is None else found.scores.detach()
    return Observation(sets.asking, sets.places, found.candidates, found.weights.detach(), scores, found.proposed)
