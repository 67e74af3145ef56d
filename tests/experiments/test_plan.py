import re
import shutil
from pathlib import Path

import pytest

from state_rag.datasets.splitting.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.experiments.launch import list_jobs
from state_rag.experiments.plan import plan_job

CHOICES = {"model": "rag", "data": "replogle", "training": "default", "wandb": "default"}


@pytest.fixture
def plan(in_screen, job_config, tmp_path):
    """Return a function from a preset and values of dotted keys to the plan of a job, in the screen's folder."""

    def of(preset="none", **values):
        given = {
            "data_file": "screen/screen.h5ad",
            "training__genept_path": "screen/embeddings.safetensors",
            "held_out": "k562",
            **values,
        }
        return plan_job(job_config(f"rag={preset}", **given), {**CHOICES, "rag": preset}, tmp_path / "x")

    return of


def test_a_job_is_named_by_method_line_candidates_seed_and_content(plan):
    names = [plan(preset, training__train_seed=3).job.name for preset in ("genept", "ptrag")]
    assert [re.sub(r"[0-9a-f]{8}$", "#", name) for name in names] == ["genept-k562-seed3-#", "ptrag-k562-k32-seed3-#"]


def test_the_record_says_what_the_configuration_comes_to(in_screen):
    overrides = ["held_out=k562", "training.rag=true", "training.topk_rag=4", "seed=3"]
    listing = list_jobs([*in_screen, *overrides], multirun=False, write=False)

    (job,) = (plan.job for plan in listing.plans)
    assert (job.method, job.preset, job.held_out, job.topk, job.seed) == ("differentiable", "none", "k562", 4, 3)
    assert {"training.rag=true", "training.topk_rag=4", "training.train_seed=3"} <= set(job.overrides)
    assert not any(text.startswith(("held_out", "sweep", "seed", "job", "data_file")) for text in job.overrides)
    assert f"training.genept_path={Path('screen/embeddings.safetensors').absolute()}" in job.overrides


def test_splits_are_written_once_and_hold_the_line_out(plan, tmp_path):
    found = {
        plan(held_out=line, training__train_seed=seed, few_shot=0.5).split
        for line in ("k562", "rpe1")
        for seed in (0, 1)
    }

    assert sorted(found) == sorted((tmp_path / "x" / "splits").iterdir())
    lists = {line: parts for path in found for (_, line), parts in read_split(path).fewshot.items()}
    assert sorted(lists) == ["k562", "rpe1"]
    assert all(parts["val"] and len(parts["test"]) == 24 - 12 - len(parts["val"]) for parts in lists.values())


def test_folds_of_perturbations_take_the_place_of_lines(plan, tmp_path):
    plans = [plan(held_out=f"fold{number}", folds=3, training__train_seed=1) for number in range(3)]
    assert [re.sub(r"[0-9a-f]{8}$", "#", found.job.name) for found in plans] == [
        f"none-fold{number}-seed1-#" for number in range(3)
    ]
    assert sorted(found.split for found in plans) == sorted((tmp_path / "x" / "splits").iterdir())
    tested = [read_split(found.split).fewshot["screen", "hepg2"]["test"] for found in plans]
    assert len({name for names in tested for name in names}) == sum(map(len, tested)) == 24
    assert len({found.job.fingerprint for found in plans}) == 3


def test_own_splits_of_folds_are_found_by_their_number(plan, tmp_path):
    made = plan(held_out="fold1", folds=2).split
    (tmp_path / "own").mkdir()
    for number in range(2):
        shutil.copy(
            made.with_name(made.name.replace("fold1", f"fold{number}")), tmp_path / "own" / f"fold{number}.toml"
        )
    own = {"data_file": None, "data__kwargs__toml_config_path": f"{tmp_path}/own/{{held_out}}.toml"}
    found = plan(held_out="fold0", **own)
    assert (found.job.held_out, found.split) == ("fold0", tmp_path / "own" / "fold0.toml")


def test_a_split_of_a_folder_is_written_anew_when_a_file_in_it_has_changed(plan, tmp_path):
    (tmp_path / "data").mkdir()
    screen = tmp_path / "data" / "screen.h5ad"
    shutil.copy("screen/screen.h5ad", screen)
    before = plan(data_file=str(tmp_path / "data")).split
    with open(screen, "ab") as stream:
        stream.write(b"x")
    assert plan(data_file=str(tmp_path / "data")).split != before


def test_a_listing_writes_nothing(in_screen, tmp_path, monkeypatch):
    for name in ("screen", "split.toml"):
        (tmp_path / name).symlink_to(Path(name).absolute())
    monkeypatch.chdir(tmp_path)
    assert list_jobs([*in_screen, "held_out=k562"], multirun=False, write=False).errors == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["screen", "split.toml"]


@pytest.mark.parametrize("line", ["{held_out}", "${held_out}"])
def test_own_splits_are_found_by_the_line_and_not_copied(in_screen, tmp_path, line):
    (tmp_path / "splits").mkdir()
    shutil.copy("split.toml", tmp_path / "splits" / "hepg2.toml")
    toml = f'data.kwargs.toml_config_path="{tmp_path}/splits/{line}.toml"'
    overrides = [in_screen[1], "held_out=hepg2,k562", toml, f"sweep_dir={tmp_path}/x"]

    listing = list_jobs(overrides, multirun=True, write=True)

    (plan,) = listing.plans
    assert plan.split == tmp_path / "splits" / "hepg2.toml"
    assert f"data.kwargs.toml_config_path={plan.split}" in plan.job.overrides
    assert not (tmp_path / "x" / "splits").exists()
    assert "k562.toml: no such file" in listing.errors[0][1]


def test_the_line_of_an_own_split_is_read_from_it_and_must_be_the_one_asked_for(plan):
    own = {"data_file": None, "data__kwargs__toml_config_path": "split.toml"}
    assert plan(**own, held_out=None).job.held_out == "hepg2"
    with pytest.raises(StateRagError, match="holds out hepg2"):
        plan(**own, held_out="k562")


def test_plain_state_runs_without_embeddings_and_other_methods_do_not(plan, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = plan(training__genept_path=None)
    assert found.embeddings is None
    assert not found.only_with_embedding
    with pytest.raises(StateRagError, match="Ways to get embeddings"):
        plan("genept", training__genept_path=None)


def test_the_test_set_can_be_left_whole(plan):
    assert plan().only_with_embedding
    assert not plan(job__only_with_embedding=False).only_with_embedding
    assert plan(job__only_with_embedding=False).job.fingerprint != plan().job.fingerprint


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"held_out": "mars"}, r"no cell line 'mars' \(from held_out\)"),
        ({"held_out": None}, "no cell line to hold out"),
        ({"folds": 3}, "held_out=k562, but with folds=3 .*held_out=fold0,fold1,fold2. To hold out cell lines"),
        ({"folds": 3, "held_out": "fold3"}, "counted from 0"),
        ({"folds": 99, "held_out": "fold3"}, "folds 99: expected from 2 to 24"),
        ({"folds": 2.5, "held_out": "fold0"}, "folds=2.5 is not a whole number"),
        ({"folds": 3, "held_out": "fold0", "held_out_pairs": "any"}, "held_out_pairs any: 0 pairs"),
        ({"folds": 3, "held_out": "fold0", "test_list": "a.txt"}, "Leave one out"),
        ({"held_out_pairs": "any"}, "holds pairs out a fold at a time"),
        ({"held_out": "fold0"}, "say how many there are, such as folds=5"),
        ({"data__kwargs__toml_config_path": "split.toml"}, "Leave one out"),
        ({"data__kwargs__pert_col": "guide"}, "data.kwargs.pert_col"),
        ({"data_file": None}, "data_file=.*data.kwargs.toml_config_path="),
        ({"job__checkpoint": "first.ckpt"}, "last.ckpt, best.ckpt, final.ckpt"),
        ({"job__checkpoint": "best.ckpt", "training__max_steps": 5}, "training.val_freq=2000"),
        ({"job__cell_eval": "all"}, "null, minimal, de, full"),
        ({"job__objective": "pearsson"}, "job.objective=pearsson"),
        ({"job__threads": 0}, "job.threads=0"),
        ({"job__evidence": "yes please"}, "job.evidence=yes please is not a choice"),
        ({"training__train_seed": "one"}, "seed=one is not a whole number"),
        ({"training__differentiable_rag": True}, "training.rag=false"),
        ({"training__genept_path": "nowhere.npz"}, "nowhere.npz"),
    ],
)
def test_what_cannot_run_is_refused_with_its_key(plan, values, said):
    with pytest.raises(StateRagError, match=said):
        plan(**values)


def test_jobs_of_joblib_share_the_cores_unless_told_otherwise(monkeypatch):
    from state_rag.experiments import launch

    monkeypatch.setattr(launch, "cores", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for at_once, threads in ((4, 2), (20, 1), (1, None), (None, None)):
        monkeypatch.setattr(launch, "parallel_jobs", lambda at_once=at_once: at_once)
        assert launch.shared_threads() == threads
    monkeypatch.setattr(launch, "parallel_jobs", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launch.shared_threads() is None
