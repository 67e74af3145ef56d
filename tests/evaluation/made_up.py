"""A small made-up screen and run folders in the layout that `state tx train` and `state tx predict` write."""

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import yaml

CONTROL = "non-targeting"
HELD_OUT = "hepg2"
LINES = ("hepg2", "jurkat", "k562")


@dataclass
class Screen:
    """True mean effects `[P, G]` per line, base profiles, and the files that hold the cells."""

    perturbations: list[str]
    genes: list[str]
    base: dict[str, np.ndarray]
    effects: dict[str, np.ndarray]
    embeddings: dict[str, np.ndarray]
    h5ad: Path
    toml: Path
    test: list[str]
    few_shot: list[str]


def cells_around(rng: np.random.Generator, mean: np.ndarray, n: int) -> np.ndarray:
    """Return non-negative cells around a mean profile."""
    return np.clip(rng.normal(mean, 0.4, size=(n, len(mean))), 0, None).astype(np.float32)


def make_screen(folder: Path, *, perturbations: int = 24, genes: int = 60, cells: int = 25, seed: int = 0) -> Screen:
    """Write a screen whose effects are a linear function of embeddings plus a part of each line."""
    rng = np.random.default_rng(seed)
    names = [f"P{number:02d}" for number in range(perturbations)]
    vectors = rng.normal(size=(perturbations, 6))
    common = 0.3 * vectors @ rng.normal(size=(6, genes)) + 0.2 * rng.normal(size=genes)
    base = {line: rng.uniform(2, 4, size=genes) for line in LINES}
    effects = {line: common + 0.25 * rng.normal(size=common.shape) for line in LINES}
    blocks, labels = [], []
    for line in LINES:
        for number, name in enumerate([*names, CONTROL]):
            mean = base[line] + (effects[line][number] if name != CONTROL else 0)
            count = cells if name != CONTROL else 4 * cells
            blocks.append(cells_around(rng, mean, count))
            labels += [(name, line, f"{line}_{k % 2}") for k in range(count)]
    obs = pd.DataFrame(labels, columns=["gene", "cell_line", "gem_group"])
    obs.index = [f"cell{number}" for number in range(len(obs))]
    values = np.concatenate(blocks)
    var = pd.DataFrame(index=[f"G{number}" for number in range(genes)])
    folder.mkdir(parents=True, exist_ok=True)
    adata = ad.AnnData(values, obs=obs, var=var, obsm={"X_hvg": values})
    adata.var["highly_variable"] = True
    adata.write_h5ad(folder / "screen.h5ad")
    test, few_shot = names[: perturbations // 2], names[perturbations // 2 :]
    quoted = ", ".join(f'"{name}"' for name in test)
    (folder / "split.toml").write_text(
        f'[datasets]\nscreen = "{folder / "screen.h5ad"}"\n\n[training]\nscreen = "train"\n\n[zeroshot]\n\n'
        f'[fewshot."screen.{HELD_OUT}"]\nval = []\ntest = [{quoted}]\n'
    )
    embeddings = {name: vector.astype(np.float32) for name, vector in zip(names, vectors, strict=True)}
    return Screen(
        names, list(var.index), base, effects, embeddings, folder / "screen.h5ad", folder / "split.toml", test, few_shot
    )


def make_run(folder: Path, screen: Screen, *, accuracy: float, seed: int = 1, name: str | None = None) -> Path:
    """Write a run whose predicted effect is `accuracy` times the truth plus noise."""
    rng = np.random.default_rng(seed)
    with_real = ad.read_h5ad(screen.h5ad)
    kept = with_real[
        (with_real.obs["cell_line"] == HELD_OUT) & with_real.obs["gene"].isin([*screen.test, CONTROL]).to_numpy()
    ]
    real = np.asarray(kept.X)
    predicted = np.empty_like(real)
    labels = kept.obs["gene"].astype(str).to_numpy()
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        mean = screen.base[HELD_OUT].copy()
        if label != CONTROL:
            effect = screen.effects[HELD_OUT][screen.perturbations.index(label)]
            noise = rng.normal(size=len(effect)) * np.std(effect)
            mean += accuracy * effect + (1 - accuracy) * 0.6 * noise
        predicted[rows] = cells_around(rng, mean, len(rows))
    evaluation = folder / "eval_last.ckpt"
    evaluation.mkdir(parents=True, exist_ok=True)
    obs = kept.obs.reset_index(drop=True)
    obs.index = obs.index.astype(str)
    ad.AnnData(predicted, obs=obs).write_h5ad(evaluation / "adata_pred.h5ad")
    ad.AnnData(real, obs=obs).write_h5ad(evaluation / "adata_real.h5ad")
    config = {
        "name": name or folder.name,
        "output_dir": str(folder.parent),
        "data": {
            "kwargs": {
                "pert_col": "gene",
                "cell_type_key": "cell_line",
                "batch_col": "gem_group",
                "control_pert": CONTROL,
                "embed_key": "X_hvg",
                "output_space": "gene",
                "toml_config_path": str(screen.toml),
            }
        },
        "training": {"train_seed": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def write_retrieval(folder: Path, screen: Screen) -> None:
    """Write a retrieval file whose inclusion follows the true effects, and the embeddings it is compared with."""
    rows = ["cell_type,pert_name,retrieved_perturbations,selected_perturbations,n_selected,n_retrieved,degs,n_degs"]
    effects = dict(zip(screen.perturbations, screen.effects[HELD_OUT], strict=True))
    for query in screen.test:
        others = [name for name in screen.perturbations if name != query][:6]
        weights = [0.5 + 0.5 * np.corrcoef(effects[query], effects[name])[0, 1] for name in others]
        found = "|".join(f"{name}(w={weight:.2f})" for name, weight in zip(others, weights, strict=True))
        rows += [f"{HELD_OUT},{query},{found},none,0,6,,0"] * 3
    (folder / "eval_last.ckpt/retrieval_info.csv").write_text("\n".join(rows) + "\n")
    np.savez(folder.parent / "vectors.npz", **screen.embeddings)
