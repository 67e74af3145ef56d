"""Sweep folders with made-up evaluations, in the layout that a sweep and `state-rag evaluate` write."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.experiments.jobs import Job, write_job
from state_rag.metrics.registry import METRICS

PRESETS = {"none": "none", "genept": "genept", "vanilla": "vanilla", "hidden": "hidden", "differentiable": "ptrag"}
QUALITY = {"none": 0.5, "genept": 0.55, "vanilla": 0.3, "hidden": 0.35, "differentiable": 0.6}
BASELINES = {"no effect": 0.1, "mean effect": 0.2}


def make_job(
    folder: Path,
    method: str,
    line: str,
    seed: int = 0,
    topk: int | None = None,
    *,
    status: str = "finished",
    preset: str | None = None,
    overrides: tuple[str, ...] = (),
    **evaluation,
) -> Job:
    """Write one job's record and, if it is finished, its evaluation."""
    preset = preset or PRESETS[method]
    words = [
        preset,
        line,
        *([f"k{topk}"] if topk else []),
        *(text.replace("=", "-").replace("/", "-") for text in overrides),
    ]
    name = "_".join([*words, f"s{seed}"])
    done = status == "finished"
    job = Job(
        name=name,
        method=method,
        preset=preset,
        held_out=line,
        topk=topk,
        seed=seed,
        status=status,
        run_folder=folder / "runs" / name,
        predictions=folder / "runs" / name / "eval_last.ckpt" if done else None,
        overrides=(
            f"rag={preset}",
            f"data.kwargs.toml_config_path={folder}/splits/{line}.toml",
            f"training.train_seed={seed}",
            *([f"training.topk_rag={topk}"] if topk else []),
            *overrides,
        ),
        fingerprint="0" * 8,
        log=folder / "jobs" / f"{name}.log",
    )
    write_job(folder, job)
    if done:
        write_evaluation(job.predictions / "gge", line, QUALITY[method], seed, **evaluation)
    return job


def write_evaluation(
    folder: Path, line: str, quality: float, seed: int, *, conditions: int = 20, baselines: dict | None = None
) -> None:
    """Write an evaluation whose correlations are about `quality` and whose distances are about one minus it."""
    model = _values(line, quality, seed, conditions)
    levels = BASELINES if baselines is None else baselines
    naive = pd.concat([_values(line, level, 99, conditions).assign(predictor=name) for name, level in levels.items()])
    folder.mkdir(parents=True)
    model.to_csv(folder / "results.csv", index=False)
    naive.to_csv(folder / "baselines.csv", index=False)
    kinds = {metric.name: {"label": metric.label, "higher_is_better": metric.higher_is_better} for metric in METRICS}
    (folder / "summary.json").write_text(json.dumps({"metadata": {"definitions": kinds}}))


def _values(line: str, quality: float, seed: int, conditions: int) -> pd.DataFrame:
    easy = np.random.default_rng(len(line)).normal(size=conditions) * 0.05
    own = np.random.default_rng([seed, int(1000 * quality)]).normal(size=(conditions, len(METRICS))) * 0.01
    good = quality + easy[:, None] + own
    values = {
        metric.name: good[:, place] if metric.higher_is_better else 1 - good[:, place]
        for place, metric in enumerate(METRICS)
    }
    names = [f"P{number:02d}" for number in range(conditions)]
    return pd.DataFrame({"perturbation": names, "cell_line": line, **values})


def mean_of(job: Job, metric: str) -> float:
    """Return the mean of a job's metric, read from its file."""
    return float(pd.read_csv(job.predictions / "gge" / "results.csv")[metric].mean())
