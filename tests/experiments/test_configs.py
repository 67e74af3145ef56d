"""Every preset composes, and says what its name promises."""

import pytest

from state_rag.experiments.launch import list_jobs, search_trials
from state_rag.settings import RagSettings
from state_rag.upstream.search_path import config_dir

MODES = {"state": "none", "genept": "genept", "vanilla": "vanilla", "ptrag": "differentiable"}
AS_PUBLISHED = {
    "rag_fusion": "replace",
    "rag_inference": "sample",
    "rag_score_scale": "batch",
    "rag_attention": "causal",
}
SIZES = {"paper": (50001, 64 * 64, 32), "quick": (2000, 16 * 16, 10)}


def names_in(group):
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in names_in("experiment") if name != "default"])
def test_an_experiment_is_the_run_that_its_name_says(job_config, name):
    config = job_config(f"experiment={name}")

    size, _, method = name.partition("_")
    settings = RagSettings.from_mapping(config["training"])
    assert settings.mode == MODES[method.removesuffix("_paper")]
    if name in ("paper_ptrag", "quick_ptrag_paper"):
        assert {key: getattr(settings, key) for key in AS_PUBLISHED} == AS_PUBLISHED
    cells = config["training"]["batch_size"] * config["model"]["kwargs"]["cell_set_len"]
    assert (config["training"]["max_steps"], cells, settings.topk_rag) == SIZES[size]
    assert config["data"]["kwargs"]["control_pert"] == "non-targeting"
    assert config["few_shot"] == 0.3


def test_the_published_transformer_is_that_of_the_paper(job_config):
    config = job_config("experiment=paper_ptrag")
    backbone = config["model"]["kwargs"]["transformer_backbone_kwargs"]
    assert config["model"]["kwargs"]["hidden_dim"] == backbone["hidden_size"] == 128
    assert [backbone[f"num_{part}"] for part in ("hidden_layers", "attention_heads", "key_value_heads")] == [8, 12, 12]
    assert (backbone["head_dim"], backbone["intermediate_size"]) == (58, 2784)
    assert backbone["bidirectional_attention"] is False
    assert config["training"]["lr"] == 1e-3


def test_without_an_experiment_a_sweep_starts_from_the_configuration_of_training(job_config, compose):
    config = job_config()
    train = compose("model=rag", "data=replogle")
    assert {key: config[key] for key in train if key != "training"} == {
        key: value for key, value in train.items() if key != "training"
    }
    assert config["training"] == {**train["training"], "train_seed": 0}


def test_the_command_line_has_the_last_word(job_config):
    config = job_config("experiment=paper_ptrag", "rag=vanilla", "training.topk_rag=3", "model=state_sm")
    assert RagSettings.from_mapping(config["training"]).mode == "vanilla"
    assert config["training"]["topk_rag"] == 3
    assert config["training"]["max_steps"] == 50001
    assert config["model"]["kwargs"]["hidden_dim"] != 128


@pytest.mark.parametrize(
    ("name", "methods", "varied"),
    [
        ("table1", "none,genept,vanilla,ptrag_paper", {}),
        ("table2_topk", "vanilla,ptrag_paper", {"training.topk_rag": "2,5,10,32"}),
        ("sparsity", "ptrag", {"training.gumbel_sparsity_loss": "true,false"}),
        ("fusion", "ptrag", {"training.rag_fusion": "replace,residual"}),
        ("inference", "ptrag", {"training.rag_inference": "expected,sample,argmax"}),
    ],
)
def test_a_sweep_names_its_grid(composed, name, methods, varied):
    config = composed(f"sweep={name}")
    grid = {"rag": methods, "held_out": "k562,rpe1,jurkat,hepg2", "seed": "0,1,2", **varied}
    assert dict(config.hydra.sweeper.params) == grid
    assert config.training.max_steps == 50001
    assert config.sweep_dir == f"sweeps/{name}"
    assert str(config.hydra.mode) == "RunMode.MULTIRUN"


def test_a_sweep_runs_its_grid_less_what_the_command_line_narrows(in_screen):
    overrides = [*in_screen, "sweep=sparsity", "experiment=quick_ptrag", "held_out=k562,hepg2", "seed=0"]
    listing = list_jobs(overrides, multirun=False, write=False)

    assert listing.errors == []
    assert [plan.job.held_out for plan in listing.plans] == ["k562", "k562", "hepg2", "hepg2"]
    assert len({plan.job.fingerprint for plan in listing.plans}) == 4
    assert {plan.training["steps"] for plan in listing.plans} == {2000}


def test_a_search_is_known_as_one_and_its_first_job_listed(in_screen):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    listing = list_jobs([*in_screen, "sweep=tune", "hydra.sweeper.n_trials=7"], multirun=False, write=False)
    assert (listing.trials, len(listing.plans), listing.errors) == (7, 1, [])


def test_a_grid_is_no_search():
    assert search_trials(["sweep=table1"]) is None


@pytest.mark.parametrize(
    ("name", "plugin", "expected"),
    [
        ("two_at_once", "joblib", {"n_jobs": 2}),
        ("local_queue", "submitit", {"cpus_per_task": 1}),
        ("slurm_gpu", "submitit", {"gpus_per_node": 1, "array_parallelism": 8}),
        ("ray_local", "ray", {}),
    ],
)
def test_launchers_compose(composed, name, plugin, expected):
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    launcher = composed(f"hydra/launcher={name}").hydra.launcher
    assert plugin in launcher._target_
    assert {key: launcher[key] for key in expected} == expected
