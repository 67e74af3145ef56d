"""Evaluation and comparison for Python: AnnData or files in, tables out. The same functions as behind the commands."""

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import pandas as pd

from state_rag.contract.feature_names import is_expression
from state_rag.effects.conditions import Columns, Condition, open_pair
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import EVIDENCE, NAMES, Baseline, naive_baselines
from state_rag.evaluation.compare import KEY
from state_rag.evaluation.compare import compare as compare_tables
from state_rag.evaluation.evaluate import evaluate_pair
from state_rag.evaluation.settings import Settings
from state_rag.metrics.registry import choose
from state_rag.names import suggest

if TYPE_CHECKING:
    import anndata

    from state_rag.effects.mean_effects import MeanEffects


def evaluate(
    predicted: "anndata.AnnData | str | os.PathLike[str]",
    real: "anndata.AnnData | str | os.PathLike[str]",
    *,
    perturbation: str = "gene",
    context: str = "cell_line",
    control: str = "non-targeting",
    matrix: str = "X",
    genes: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    training: "anndata.AnnData | None" = None,
    embeddings: Any = None,
    evidence: bool = True,
    progress: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Compute every metric for every condition of predicted cells, beside naive baselines.

    Parameters
    ----------
    predicted, real
        Cells of the same conditions, controls included, with the same genes: AnnData objects or h5ad files.
    perturbation, context
        Columns of `obs` that both have.
    control
        Label of control cells.
    matrix
        `X` or `obsm/NAME`: where both have log-normalised expression.
    genes
        Names of the columns, for files that carry none, such as those of `state tx predict`.
    metrics
        Names; by default all (`state_rag.metrics.table`).
    training
        Mean effects of the training data (`state_rag.effects.read`), for the baselines that need them: mean effect,
        same perturbation in other lines. "no effect" needs none and is always there.
    embeddings
        Perturbation to vector, or what `state_rag.embeddings.read` returns, for the ridge baseline, which needs
        `training` too.
    evidence
        Whether the evidence engine is fitted on `training`, and `embeddings` where they are given, for a row of its
        own ("evidence, controls scaled"). That takes from half a minute to some minutes, once for the same effects and
        embeddings.
    progress
        Whether to show progress bars.
    **settings
        Those of `state_rag.evaluation.settings.Settings`: `deg_p`, `deg_log2fc`, `components`, `device`, `seed`, ...

    Returns
    -------
    pandas.DataFrame
        One row a predictor ("model" is `predicted`) and condition: `predictor`, `perturbation`, `cell_line` (the
        context), `n_real`, `n_predicted`, `n_degs`, and one column a metric, as `state-rag evaluate` writes them.
        `attrs["notes"]` says what a reader should know: NaN, fallbacks, PCA of another size.

    Raises
    ------
    StateRagError
        If columns, controls, conditions or genes of the two do not fit together, or for an unknown metric or setting.

    Examples
    --------
    >>> import state_rag as sr
    >>> real = sr.datasets.screen(n_perturbations=4, n_genes=40)
    >>> table = sr.metrics.evaluate(real, real, metrics=["mse", "pearson_delta"])
    >>> float(table[table["predictor"] == "model"]["mse"].max())
    0.0
    """
    pair = open_pair(
        predicted,
        real,
        Columns(perturbation, context, control),
        matrix=matrix,
        features=None if genes is None else list(genes),
    )
    try:
        chosen = Settings(**settings)
    except TypeError as error:
        known = ", ".join(name for name in Settings.__dataclass_fields__)
        raise StateRagError(f"{error}; settings of an evaluation are {known}") from None
    asked = [*chain.from_iterable(pair.lines.values())]
    known_effects = None
    if training is not None:
        from state_rag.effects.mean_effects import MeanEffects

        if list(map(str, training.var_names)) != list(pair.features):
            raise StateRagError(
                f"the genes of `training` ({training.var_names[0]}, ...) are not those of the cells "
                f"({pair.features[0]}, ...) in the same order. Make both from the same genes, and name those of cells "
                "without names with `genes`"
            )
        known_effects = MeanEffects.from_anndata(training)
    vectors = None
    if embeddings is not None:
        vectors = (
            {name: embeddings.row(name) for name in embeddings.names} if hasattr(embeddings, "row") else embeddings
        )
    baselines = naive_baselines(known_effects, len(pair.features), vectors, asked)
    notes: dict[str, str] = {}
    if evidence and training is not None and known_effects is not None:
        row, notes = _evidence(training, known_effects, control, asked, vectors, is_expression(matrix), progress)
        baselines |= row
    evaluation = evaluate_pair(
        pair,
        baselines=baselines,
        metrics=choose(list(metrics) if metrics is not None else None, "metrics"),
        settings=chosen,
        progress=progress,
    )
    table = evaluation.table.copy()
    table.attrs["notes"] = {**evaluation.notes, **notes}
    return table


def _evidence(
    training: "anndata.AnnData",
    effects: "MeanEffects",
    control: str,
    asked: Sequence[Condition],
    vectors: Mapping[str, Any] | None,
    expression: bool,
    progress: bool,
) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Return the evidence engine's row by its name, and a note; no row where it would say nothing of its own."""
    from state_rag.engine.bank import responses_in
    from state_rag.evaluation.baselines.evidence_row import FITTED, LEFT_OUT, evidence_row

    conditions = {("train", line, name): 1 for line, names in effects.effects.items() for name in names}
    conditions |= {("test", one.cell_line, one.perturbation): 1 for one in asked}
    row, told = evidence_row(
        responses_in(training),
        conditions,
        control,
        asked,
        (vectors, "those given"),
        expression=expression,
        progress=progress,
    )
    return ({}, {LEFT_OUT: told}) if row is None else ({EVIDENCE: row}, {FITTED: told})


def compare(
    tables: Mapping[str, pd.DataFrame], reference: str | None = None, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare predictors on the conditions that all of them have, with paired tests against a reference.

    Parameters
    ----------
    tables
        Name to the table of `evaluate`. Of a table with several predictors the model's rows are taken, and the
        baselines' of the reference stand under their own names.
    reference
        Whom the others are tested against; the last one by default.
    metrics
        Names; by default all that every table has.

    Returns
    -------
    pandas.DataFrame
        One row a predictor and metric: `mean`, `sd`, `n`, `n_missing`, `difference` (to the reference), and p and
        Benjamini-Hochberg q of Mann-Whitney's and Wilcoxon's tests, as `state-rag compare` writes them.

    Raises
    ------
    StateRagError
        If the reference is unknown, a name is a baseline's, or no condition is shared.

    Examples
    --------
    >>> import state_rag as sr
    >>> real = sr.datasets.screen(n_perturbations=6, n_genes=40)
    >>> table = sr.metrics.evaluate(real, real, metrics=["mse"])
    >>> sr.metrics.compare({"perfect": table})["predictor"].tolist()
    ['no effect', 'perfect']
    """
    if not tables:
        raise StateRagError("no tables to compare")
    reference = reference if reference is not None else list(tables)[-1]
    if reference not in tables:
        close = suggest([reference], tables)
        raise StateRagError(f"reference: '{reference}' is none of {', '.join(tables)}{close}")
    if taken := [name for name in tables if name in NAMES]:
        raise StateRagError(f"'{taken[0]}' is what a baseline is called; name the table otherwise")
    for name, table in tables.items():
        if lacking := [column for column in KEY if column not in table]:
            raise StateRagError(f"{name}: the table has no column '{lacking[0]}'; give tables of `evaluate`")
    chosen = {name: _model_rows(table) for name, table in tables.items()}
    of_reference = tables[reference]
    baselines = {}
    if "predictor" in of_reference:
        grouped = of_reference.groupby("predictor", sort=False)
        baselines = {str(name): table for name, table in grouped if name in NAMES}
    return compare_tables({**baselines, **chosen}, reference, list(metrics) if metrics is not None else None).rows


def _model_rows(table: pd.DataFrame) -> pd.DataFrame:
    from state_rag.evaluation.evaluate import MODEL

    return table if "predictor" not in table else table[table["predictor"] == MODEL]
