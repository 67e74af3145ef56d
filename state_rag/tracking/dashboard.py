"""A saved view of a W&B project with panels for retrieval, made with `wandb-workspaces` (the extra `dashboard`)."""

import re
from collections.abc import Mapping
from typing import Any

from state_rag.errors import StateRagError
from state_rag.tracking.login import is_logged_in

STEP = "trainer/global_step"
"""Lightning's step, the horizontal axis of every curve."""

LINES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Losses": {
        "training loss": ("train_loss",),
        "validation loss": ("val_loss",),
    },
    "Selection": {
        "active ratio": ("train/gumbel_active_ratio",),
        "mean inclusion (sparsity term)": ("train/gumbel_sparsity",),
        "candidates selected a cell": ("retrieval/n_selected",),
        "score mean": ("retrieval/score_mean",),
        "score standard deviation": ("retrieval/score_std",),
        "running score scale": ("retrieval/score_scale",),
        "temperature": ("retrieval/temperature",),
        "attention entropy (attention modes)": ("retrieval/attention_entropy",),
    },
    "Gradients": {
        "norm: selector": ("train/gradient_norm_selector",),
        "norm: backbone": ("train/gradient_norm_backbone",),
        "selector / backbone": ("train/gradient_norm_ratio",),
    },
    "Validation retrieval": {
        "Jaccard between cell types": ("val_retrieval/jaccard_mean",),
        "candidates selected a cell": ("val_retrieval/n_selected",),
        "mean inclusion": ("val_retrieval/inclusion_mean",),
    },
}
"""Section -> title -> series, one line for each run."""

FAMILIES: Mapping[str, Mapping[str, str]] = {
    "Selection": {
        "selected, by cell type": "^retrieval/n_selected_by_cell_type/",
        "inclusion, by candidate rank": "^retrieval/inclusion/rank_",
        "attention, by candidate rank": "^retrieval/attention/rank_",
    },
    "Gradients": {"norms by module (training.check_gradients)": "^gradients/"},
    "Validation retrieval": {"selected, by cell type": "^val_retrieval/n_selected_by_cell_type/"},
}
"""Section -> title -> pattern of series that belong in one panel."""

PICTURES = {"Validation retrieval": {"neighbours shared between cell types": "val_retrieval/jaccard_heatmap"}}
TABLES = {
    "Watched perturbations": ("val_retrieval/watched",),
    "Validation retrieval": ("val_retrieval/jaccard", "val_retrieval/by_rank"),
    "Evidence": ("evidence/scores", "evidence/sources", "evidence/trust"),
    "Evaluation": ("evaluation/table", "evaluation/conditions"),
}
BARS = {"Evaluation": ("pearson_delta", "pearson_delta_deg", "pearson_deg", "mse", "energy_pca50")}
EVALUATION_PICTURES = {"Evaluation": {"metrics over conditions": "evaluation/distributions"}}
GROUPS = ("method", "held_out", "topk")
"""Keys of a run's configuration by which a sweep is looked at."""


def build(project: str, *, name: str = "state-rag", group: str | None = None) -> Any:
    """Return the view, not saved yet; the network is not used.

    Parameters
    ----------
    project
        ``ENTITY/PROJECT``.
    name
        Title of the view.
    group
        W&B group that the view is limited to; None shows every run.

    Raises
    ------
    StateRagError
        If `project` has another form, or `wandb-workspaces` is not installed.
    """
    match = re.fullmatch(r"([^/\s]+)/([^/\s]+)", project)
    if match is None:
        raise StateRagError(f"{project!r} is not of the form ENTITY/PROJECT, such as my-team/state.")
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise StateRagError(
            "`state-rag dashboard` needs wandb-workspaces. Install it with: pip install 'state-rag[dashboard]'"
        ) from error
    sections = dict.fromkeys((*LINES, "Watched perturbations", "Evidence", "Evaluation"))
    return ws.Workspace(
        entity=match[1],
        project=match[2],
        name=name,
        sections=[ws.Section(name=title, panels=_panels(wr, title), is_open=True) for title in sections],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == group] if group else [],
            groupby=[ws.Config(key) for key in GROUPS],
            pinned_columns=[f"config:{key}.value" for key in GROUPS],
        ),
    )


def specification(view: Any) -> dict[str, Any]:
    """Return what would be sent to W&B for a view, as plain types."""
    return view._to_model().spec.model_dump(by_alias=True, exclude_none=True, mode="json")


def save(view: Any) -> str:
    """Save a view on W&B's server and return its address.

    Raises
    ------
    StateRagError
        Without a login, without the network, or if W&B refuses.
    """
    where = f"{view.entity}/{view.project}"
    hint = "`--dry-run` shows what would be sent."
    if not is_logged_in():
        raise StateRagError(f"The dashboard of {where} needs a login. Run `wandb login`, or set WANDB_API_KEY. {hint}")
    try:
        view.save()
    except Exception as error:  # noqa: BLE001  W&B raises many types for network, rights and unknown projects
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StateRagError(f"The dashboard of {where} could not be saved: {reason}. {hint}") from error
    return view.url


def _panels(wr: Any, section: str) -> list[Any]:
    found: list[Any] = [
        wr.LinePlot(title=title, x=STEP, y=list(series)) for title, series in LINES.get(section, {}).items()
    ]
    found += [
        wr.LinePlot(title=title, x=STEP, metric_regex=pattern) for title, pattern in FAMILIES.get(section, {}).items()
    ]
    pictures = {**PICTURES.get(section, {}), **EVALUATION_PICTURES.get(section, {})}
    found += [wr.MediaBrowser(title=title, media_keys=[key], num_columns=1) for title, key in pictures.items()]
    found += [wr.BarPlot(title=name, metrics=[f"evaluation/{name}"]) for name in BARS.get(section, ())]
    found += [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES.get(section, ())]
    return found
