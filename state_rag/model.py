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
from typing import Any, ClassVar

import torch
from state.tx.models.state_transition import StateTransitionPerturbationModel
from torch import Tensor

from state_rag.cell_sets import CellSets, read_sets
from state_rag.checkpoint import CHECKPOINT_KEY, FORMAT, extends, pack, read_knowledge, without_numpy
from state_rag.errors import StateRagError
from state_rag.retrieval.attention import CandidateAttention, HiddenSpaceRetrieval
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.neighbours import NeighbourTable, distinct
from state_rag.retrieval.selector import CandidateSelector
from state_rag.retrieval.trace import RetrievalTrace
from state_rag.settings import RagSettings
from state_rag.tracking.callback import RetrievalTracker
from state_rag.tracking.gradients import GradientCheck
from state_rag.tracking.observation import Observation


class RagStateTransition(StateTransitionPerturbationModel):
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

    bound_knowledge: ClassVar[Knowledge | None] = None
    bound_controls: ClassVar[frozenset[str]] = frozenset()
    trace_sink: ClassVar[Callable[[Mapping[str, Any], dict[str, Any], RetrievalTrace], None] | None] = None

    @classmethod
    def bound_to(
        cls,
        knowledge: Knowledge,
        *,
        controls: Sequence[str] = (),
        trace_sink: Callable[[Mapping[str, Any], dict[str, Any], RetrievalTrace], None] | None = None,
    ) -> type["RagStateTransition"]:
        """Return a subclass whose instances start with `knowledge`.

        STATE constructs models from plain keyword arguments, all of which it saves; tensors must not be
        among them, hence the detour.

        Parameters
        ----------
        knowledge
            Names and embeddings.
        controls
            Further names of controls, beside the run's own.
        trace_sink
            Called after each `predict_step` with the batch, its output and what was retrieved.
        """
        sink = None if trace_sink is None else staticmethod(trace_sink)
        bound = {"bound_knowledge": knowledge, "bound_controls": frozenset(controls), "trace_sink": sink}
        return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__, **bound})

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
        self.neighbours: NeighbourTable | None = None
        self.selector: CandidateSelector | None = None
        self.attention: CandidateAttention | None = None
        self.hidden: HiddenSpaceRetrieval | None = None
        # STATE without this plugin refuses a checkpoint with an entry that it does not know.
        self.register_buffer("state_rag_format", torch.tensor(FORMAT))
        if settings.mode == "differentiable":
            self.selector = CandidateSelector(
                hidden_dim,
                dropout=self.dropout,
                temperature=settings.gumbel_temperature,
                score_scale=settings.rag_score_scale,
                inference=settings.rag_inference,
                similarity=settings.rag_score_similarity,
            )
        elif settings.mode == "vanilla":
            self.attention = CandidateAttention(pert_dim, hidden_dim)
        elif settings.mode == "hidden":
            self.hidden = HiddenSpaceRetrieval(hidden_dim, settings.topk_rag, settings.rag_weight)
        self.gradient_check = GradientCheck(settings.gradient_check_interval) if settings.check_gradients else None
        self._sets: CellSets | None = None
        self._encoded_cells: Tensor | None = None
        self._sparsity: Tensor | None = None
        self._active: Tensor | None = None
        self._trace: RetrievalTrace | None = None
        self.observer: Callable[[Observation], None] | None = None
        self.quiet = False
        if knowledge is not None:
            self.set_knowledge(knowledge)

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
        others = knowledge.n_candidates - 1
        if self.settings.retrieves and self.settings.topk_rag > others:
            raise StateRagError(
                f"training.topk_rag={self.settings.topk_rag} exceeds the {others} other perturbations of the base. "
                "Set it to that or less."
            )
        # A copy: the models of one bound class may lie on different devices, or in different precisions.
        self.knowledge = copy.deepcopy(knowledge).to(self.state_rag_format.device)
        if self.settings.mode in ("vanilla", "differentiable"):
            self.neighbours = NeighbourTable(self.knowledge, self.settings.topk_rag)
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
        self._sets, self._sparsity, self._active, self._trace = sets, None, None, None
        try:
            # A view: no embedding is repeated for the cells of a set.
            pert = embedding[:, None, :].expand(-1, sets.basal.shape[1], -1)
            return super().forward({**batch, "pert_emb": pert}, padded=padded)
        finally:
            self._sets = self._encoded_cells = None

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
        if self._sets is None:
            return super().encode_perturbation(pert)
        query = self.pert_encoder(pert[:, 0])
        if not self.settings.retrieves:
            return query[:, None, :]
        # STATE adds the encoded cells to what is returned here. Adding and taking away in float32 keeps the
        # context exact under mixed precision; the cells are encoded once and handed back below.
        cells = super().encode_basal_expression(self._sets.basal).float()
        self._encoded_cells = cells
        return self._retrieve(cells, query.float()) - cells

    def encode_basal_expression(self, expr: Tensor) -> Tensor:
        """Encode control cells [B, S, input_dim] to [B, S, H], once in a forward pass."""
        return super().encode_basal_expression(expr) if self._encoded_cells is None else self._encoded_cells

    def _retrieve(self, cells: Tensor, query: Tensor) -> Tensor:
        """Return the transformer's input [B, S, H] from encoded cells [B, S, H] and perturbations [B, H]."""
        sets = self._sets
        assert sets is not None
        combined = cells + query[:, None, :]
        if not sets.places:
            self._record_nothing()
            # Every parameter takes part in every step, as distributed training needs.
            return combined + self._retriever.zero_weight_terms()
        whole = len(sets.places) == len(sets.names)
        chosen = torch.tensor(sets.places).to(cells.device, non_blocking=True)

        def take(tensor: Tensor) -> Tensor:
            return tensor if whole else tensor[chosen]

        told = self._draw_told(len(chosen), cells)
        context = self._context(take(cells), take(query), take(combined), sets.rows[sets.places], told)
        if self.settings.rag_fusion == "residual":
            shown = take(query) if told is None else take(query) * told[:, None]
            context = context + take(cells) + shown[:, None, :]
        return context if whole else combined.index_copy(0, chosen, context.to(combined.dtype))

    def _draw_told(self, count: int, like: Tensor) -> Tensor | None:
        """Return [count], 0 for sets whose own perturbation the transformer shall not see; None: it sees all."""
        dropout = self.settings.rag_query_dropout
        if not self.training or not dropout:
            return None
        return (torch.rand(count, device=like.device) >= dropout).to(like.dtype)

    def _context(
        self, cells: Tensor, query: Tensor, combined: Tensor, rows: Tensor, told: Tensor | None = None
    ) -> Tensor:
        """Retrieve for R sets, whose rows of the knowledge lie on the CPU, and return their context [R, S, H]."""
        assert self.knowledge is not None
        if self.settings.mode == "hidden":
            return self._hidden_context(combined, query, rows)
        assert self.neighbours is not None
        candidates, similarity = self.neighbours.lookup(rows)
        distinct_rows, local = distinct(candidates)
        local = local.to(cells.device, non_blocking=True)
        embeddings = self.knowledge.rows(distinct_rows)
        if self.attention is not None:
            context, weights = self.attention(combined, embeddings, local)
            self._record(candidates, similarity, weights)
            return context
        assert self.selector is not None
        selection = self.selector(cells, query, self.pert_encoder(embeddings).float(), local, told=told)
        self._sparsity = selection.sparsity
        self._active = selection.active_ratio
        self._record(candidates, similarity, selection.include, selection.scores)
        return selection.context

    def _hidden_context(self, combined: Tensor, query: Tensor, rows: Tensor) -> Tensor:
        """Candidates by similarity in the encoded space, encoded anew with the current weights."""
        assert self.knowledge is not None
        assert self.hidden is not None
        training = self.pert_encoder.training
        self.pert_encoder.eval()
        with torch.no_grad():
            base = self.pert_encoder(self.knowledge.block("text")[: self.knowledge.n_candidates]).float()
        self.pert_encoder.train(training)
        own = torch.where(rows < self.knowledge.n_candidates, rows, torch.full_like(rows, -1))
        context, weights, candidates, similarity = self.hidden(combined, base, query, own)
        self._record(candidates, similarity, weights)
        return context

    @property
    def _retriever(self) -> CandidateSelector | CandidateAttention | HiddenSpaceRetrieval:
        module = self.selector or self.attention or self.hidden
        assert module is not None
        return module

    def _record_nothing(self) -> None:
        """Note a batch of controls: no candidates, and a sparsity of zero."""
        none = torch.zeros(0, 0)
        if self.selector is not None:
            self._sparsity = self._active = self.state_rag_format.new_zeros((), dtype=torch.float32)
        self._record(none.long(), none, torch.zeros(0, 0, 0))

    def _record(self, candidates: Tensor, similarity: Tensor, weights: Tensor, scores: Tensor | None = None) -> None:
        wanted = not self.training and type(self).trace_sink is not None
        if not wanted and self.observer is None:
            return
        assert self._sets is not None
        assert self.knowledge is not None
        names = self._sets.asking
        if self.observer is not None:
            scores = None if scores is None else scores.detach()
            self.observer(Observation(names, self._sets.places, candidates, weights.detach(), scores))
        if not wanted:
            return
        self._trace = RetrievalTrace.from_tensors(names, self.knowledge.names, candidates, similarity, weights)

    def training_step(self, batch: dict[str, Any], batch_idx: int, padded: bool = True) -> Tensor:
        """STATE's loss plus lambda times the mean inclusion (PT-RAG, loss)."""
        loss = super().training_step(batch, batch_idx, padded=padded)
        if self._sparsity is not None:
            if not self.quiet:
                self.log("train/gumbel_sparsity", self._sparsity.detach())
                self.log("train/gumbel_active_ratio", self._active)
            if self.settings.gumbel_sparsity_loss:
                loss = loss + self.settings.gumbel_sparsity_weight * self._sparsity
            self._sparsity = None
        return loss

    def predict_step(self, batch: dict[str, Any], batch_idx: int, padded: bool = True, **kwargs: Any) -> dict[str, Any]:
        """STATE's prediction; what was retrieved goes to the trace sink, if there is one."""
        output = super().predict_step(batch, batch_idx, padded=padded, **kwargs)
        sink = type(self).trace_sink
        if self._trace is not None and sink is not None:
            sink(batch, output, self._trace)
            self._trace = None
        return output

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
        assert self.knowledge is not None
        rows, places = self.knowledge.index_of(names), list(range(len(names)))
        sets = CellSets(list(names), rows, cells[None], places)
        seen: list[Observation] = []
        held = self._sets, self.observer, self._sparsity, self._active, self._trace
        self._sets, self.observer = sets, seen.append
        try:
            query = self.pert_encoder(self.knowledge.rows(rows)).float()
            encoded = super().encode_basal_expression(cells[None]).float().expand(len(names), -1, -1)
            self._context(encoded, query, encoded + query[:, None, :], rows)
        finally:
            self._sets, self.observer, self._sparsity, self._active, self._trace = held
        return seen[0]

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
            checkpoint[CHECKPOINT_KEY] = pack(self.knowledge, self.settings)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the knowledge from the checkpoint, unless the class was bound to some that contains it."""
        super().on_load_checkpoint(checkpoint)
        saved = read_knowledge(checkpoint)
        if self.knowledge is None or not extends(self.knowledge, saved):
            self.set_knowledge(saved)
