"""A trained run as a Python object: cells in, predicted cells out, through STATE's own `tx infer`.

One code path: `Predictor.predict` writes the cells that are asked about to a temporary file, calls the command's own
function on it and reads the answer back. So every run that `state tx infer` accepts works, with the same numbers.
"""

import contextlib
import io
import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from state_rag import __version__
from state_rag.errors import StateRagError
from state_rag.inference.query_cells import query_cells
from state_rag.names import listing, suggest
from state_rag.retrieval.trace import SELECTED_ABOVE
from state_rag.upstream import infer
from state_rag.upstream.inferred_sets import InferredSets, MeanRetrieval
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint

if TYPE_CHECKING:
    import anndata


def load(
    run: str | os.PathLike[str], checkpoint: str | None = None, *, genept_path: str | os.PathLike[str] | None = None
) -> "Predictor":
    """Open a trained run for prediction.

    Parameters
    ----------
    run
        Run folder of `state tx train` (or a folder that holds exactly one), with retrieval or without.
    checkpoint
        Name of a file in its `checkpoints/`, or a path; `final.ckpt` by default, or `last.ckpt` where there is none.
    genept_path
        Embeddings of perturbations that the run does not know; those that it was trained with travel in the run.

    Returns
    -------
    Predictor
        With `predict` and `retrieved`.

    Raises
    ------
    StateRagError
        If there is no run, more than one, or no such checkpoint.

    Examples
    --------
    >>> import state_rag as sr
    >>> predictor = sr.load("runs/ptrag")  # doctest: +SKIP
    >>> predicted = predictor.predict(cells, perturbations=["AARS"])  # doctest: +SKIP
    >>> predictor.retrieved("AARS", "hepg2")  # doctest: +SKIP
    """
    found = find_run(Path(run), "run")
    folder = found.folder / "checkpoints"
    if checkpoint is None:
        path = next((folder / name for name in ("final.ckpt", "last.ckpt") if (folder / name).is_file()), folder)
        path = path if path != folder else folder / "final.ckpt"
    else:
        path = Path(checkpoint) if Path(checkpoint).is_file() else folder / checkpoint
    read_checkpoint(path)  # so that what is wrong with it is said now
    return Predictor(found, path, None if genept_path is None else str(genept_path))


@dataclass
class Predictor:
    """A trained run.

    Attributes
    ----------
    run
        Its folder and configuration.
    checkpoint
        The file that predicts.
    genept_path
        Embeddings of perturbations that the run does not know.
    """

    run: Run
    checkpoint: Path
    genept_path: str | None = None
    _retrieved: dict[tuple[str, str], "MeanRetrieval"] = field(default_factory=dict, repr=False)

    @property
    def columns(self) -> dict[str, str | None]:
        """The run's own names in `obs` (`perturbation`, `context`, `batch`), and the control's label."""
        data = self.run.data
        return {
            "perturbation": str(data.get("pert_col", "gene")),
            "context": str(data.get("cell_type_key", "cell_line")),
            "batch": None if data.get("batch_col") is None else str(data["batch_col"]),
            "control": self.run.control,
        }

    def predict(
        self,
        adata: "anndata.AnnData",
        perturbations: Sequence[str] | None = None,
        contexts: Sequence[str] | None = None,
        *,
        n_cells: int | None = None,
        perturbation: str | None = None,
        context: str | None = None,
        control: str | None = None,
        batch: str | None = None,
        seed: int = 42,
        progress: bool = False,
    ) -> "anndata.AnnData":
        """Predict what perturbations do to control cells.

        Parameters
        ----------
        adata
            Cells in the space that the run was trained on (`obsm[embed_key]`, or `X`), in the same genes and order;
            in memory or backed. Only its control cells are read, except for their labels.
        perturbations
            What to predict, in every context. By default what the cells are labelled with, as many cells of each as
            there are: exactly what `state tx infer` does with such a file.
        contexts
            Cell lines to predict in; all that `adata` has by default.
        n_cells
            Cells of each perturbation and context; as many as the context has controls by default. Only with
            `perturbations`.
        perturbation, context, control, batch
            Columns of `obs`, and the control's label, where `adata` has others than the run.
        seed
            Of the draw of control cells that predictions start from.
        progress
            Whether to show STATE's progress bars.

        Returns
        -------
        anndata.AnnData
            Predicted cells, controls (as the model sees them) included: `X` `[n, G]` with gene names; `obs` with
            `perturbation`, `context`, `source_cell` (the control cell that each was predicted from, a name in
            `adata.obs_names`) and the same labels under the run's own column names; `uns["state_rag"]` with the run,
            checkpoint, seed and space. Where the run predicts an embedding too, it lies in `obsm`.

        Raises
        ------
        StateRagError
            If a column, the run's space or the controls are missing, or a perturbation has no embedding.
        """
        names = self._names(perturbation, context, control, batch)
        query = query_cells(adata, names, self.run.data.get("embed_key"), perturbations, contexts, n_cells)
        windows = InferredSets()
        with tempfile.TemporaryDirectory(prefix="state-rag-") as folder:
            question, answer = Path(folder, "query.h5ad"), Path(folder, "answer.h5ad")
            query.write_h5ad(question)
            arguments = self._arguments(question, answer, names, seed, not progress)
            with _silence(not progress), windows.watched():
                from state._cli._tx._infer import run_tx_infer

                infer.run(run_tx_infer, arguments, trace_sink=windows.take)
            import anndata

            result = anndata.read_h5ad(answer)
        sources = windows.sources(query, names)
        self._retrieved.update(windows.retrieved(query, names))
        return self._finish(adata, result, names, sources, seed)

    def retrieved(self, perturbation: str, context: str) -> pd.DataFrame:
        """Return which perturbations a prediction drew on.

        Parameters
        ----------
        perturbation, context
            A condition that `predict` has predicted, or that is in the run's own `retrieval_info.csv`.

        Returns
        -------
        pandas.DataFrame
            One row a candidate, most similar first: `rank`, `neighbour`, `similarity` (cosine of the embeddings; NaN
            where it comes from a file), `inclusion` (mean weight over cells), `selected` (inclusion above one half),
            `n_cells`.

        Raises
        ------
        StateRagError
            If the run does not retrieve, or the condition was not predicted.
        """
        if not self.run.settings.retrieves:
            raise StateRagError(f"{self.run.folder}: this run does not retrieve (mode {self.run.settings.mode})")
        if (mean := self._retrieved.get((context, perturbation))) is not None:
            return _frame(mean.neighbours, mean.similarity, mean.weights / mean.cells, mean.cells)
        known = set(self._retrieved)
        for path in sorted(self.run.folder.glob("eval_*/retrieval_info.csv")):
            from state_rag.analysis.records import read_retrieval

            for record in read_retrieval(path, progress=False):
                known.add((record.cell_line, record.perturbation))
                if (record.cell_line, record.perturbation) == (context, perturbation):
                    unknown = np.full(len(record.neighbours), np.nan)
                    return _frame(record.neighbours, unknown, record.inclusion, record.cells)
        here = sorted(name for line, name in known if line == context)
        hint = f" Predicted in {context}: {listing(here)}." if here else ""
        raise StateRagError(
            f"nothing is known of what was retrieved for {perturbation!r} in {context!r}; call `predict` for it "
            f"first.{hint}{suggest([perturbation], here)}"
        )

    def _names(self, perturbation, context, control, batch) -> dict[str, str | None]:
        given = {"perturbation": perturbation, "context": context, "control": control, "batch": batch}
        return {**self.columns, **{key: value for key, value in given.items() if value is not None}}

    def _arguments(self, question: Path, answer: Path, names, seed: int, quiet: bool) -> Namespace:
        """Return the arguments of `state tx infer`, with its own defaults where nothing was asked."""
        from state._cli._tx._infer import add_arguments_infer

        parser = ArgumentParser()
        add_arguments_infer(parser)
        words = ["--model-dir", str(self.run.folder), "--checkpoint", str(self.checkpoint), "--adata", str(question)]
        words += ["--output", str(answer), "--pert-col", names["perturbation"], "--celltype-col", names["context"]]
        words += ["--control-pert", names["control"], "--seed", str(seed)]
        if self.run.data.get("embed_key"):
            words += ["--embed-key", str(self.run.data["embed_key"])]
        if names["batch"]:
            words += ["--batch-col", names["batch"]]
        args = parser.parse_args([*words, *(["--quiet"] if quiet else [])])
        args.genept_path = self.genept_path
        return args

    def _finish(self, adata, result, names, sources: np.ndarray, seed: int) -> "anndata.AnnData":
        """Return the answer with gene names and labels."""
        import anndata

        key = self._matrix(result)
        values = result.X if key == "X" else result.obsm[key.removeprefix("obsm/")]
        values = np.asarray(values, dtype=np.float32)
        var = self._var(adata, key, values.shape[1])
        obs = pd.DataFrame(
            {
                "perturbation": result.obs[names["perturbation"]].astype(str).astype("category"),
                "context": result.obs[names["context"]].astype(str).astype("category"),
                "source_cell": np.asarray(adata.obs_names, dtype=object)[sources].astype(str),
            },
            index=result.obs_names,
        )
        for kind in ("perturbation", "context"):
            obs[self.columns[kind]] = obs[kind]
        found = anndata.AnnData(values, obs=obs, var=var)
        embed_key = self.run.data.get("embed_key")
        if embed_key and key != f"obsm/{embed_key}" and embed_key in result.obsm:
            found.obsm[embed_key] = np.asarray(result.obsm[embed_key], dtype=np.float32)
        found.uns["state_rag"] = {
            "version": __version__,
            "run": str(self.run.folder.resolve()),
            "checkpoint": self.checkpoint.name,
            "mode": self.run.settings.mode,
            "seed": seed,
            "control": names["control"],
            "matrix": key,
        }
        return found

    def _matrix(self, result) -> str:
        """Return where `state tx infer` left what the run predicts: gene expression where it predicts that."""
        embed_key, space = self.run.data.get("embed_key"), self.run.data.get("output_space", "gene")
        if not embed_key:
            return "obsm/X_state_pred" if "X_state_pred" in result.obsm else "X"
        if space == "all":
            return "X"
        if space == "gene" and "X_hvg" in result.obsm:
            return "obsm/X_hvg"
        side = f"{embed_key}_pred"
        return f"obsm/{side if side in result.obsm else embed_key}"

    def _var(self, adata, key: str, width: int) -> pd.DataFrame:
        """Return a table of the predicted columns, by the names that the data or else the checkpoint gives them."""
        from state_rag.contract.feature_names import names_in_anndata

        if key == "X" and width == adata.n_vars:
            return adata.var.copy()
        names = names_in_anndata(adata, key)
        if names is None or len(names) != width:
            stored = read_checkpoint(self.checkpoint).get("hyper_parameters", {}).get("gene_names")
            names = None if stored is None else [str(name) for name in stored]
        if names is None or len(names) != width or not key.startswith("obsm/X_"):
            names = [f"{key.removeprefix('obsm/')}_{number}" for number in range(width)]
        return pd.DataFrame(index=pd.Index(names, dtype=str))


def _frame(neighbours, similarity: np.ndarray, inclusion: np.ndarray, cells: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(neighbours) + 1),
            "neighbour": list(neighbours),
            "similarity": similarity,
            "inclusion": inclusion,
            "selected": inclusion > SELECTED_ABOVE,
            "n_cells": cells,
        }
    )


@contextlib.contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        yield
