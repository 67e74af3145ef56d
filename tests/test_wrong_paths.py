"""Whatever path a user names by mistake, the answer says what is expected there, in one line and without jargon."""

import re
import shutil

import pytest

from state_rag.cli import main
from tests.evaluation.made_up import write_retrieval

SUFFIXES = ("h5ad", "toml", "csv", "npz", "pickle", "safetensors", "parquet", "pt", "json", "txt", "yaml")
FILES = {
    "embeddings convert": (["embeddings", "convert", "{}", "-o", "x.safetensors"], "csv"),
    "embeddings convert --names": (["embeddings", "convert", "e.csv", "-o", "x.safetensors", "--names", "{}"], "txt"),
    "embeddings convert --h5ad": (["embeddings", "convert", "e.csv", "-o", "x.safetensors", "--h5ad", "{}"], "h5ad"),
    "embeddings build": (["embeddings", "build", "{}", "-o", "x.safetensors"], "json"),
    **{
        f"embeddings info {suffix}": (["embeddings", "info", "{}"], suffix)
        for suffix in ("npz", "pickle", "pt", "parquet", "safetensors", "csv")
    },
    "embeddings neighbours": (["embeddings", "neighbours", "A", "{}"], "csv"),
    "quickstart": (["quickstart", "{}"], "h5ad"),
    "quickstart --embeddings": (["quickstart", "{screen}", "--embeddings", "{}"], "npz"),
    "data split": (["data", "split", "{}", "--held-out", "a", "-o", "out.toml"], "h5ad"),
    "data split --test-list": (
        ["data", "split", "{screen}", "--held-out", "{line}", "-o", "out.toml", "--test-list", "{}"],
        "txt",
    ),
    "data prepare": (["data", "prepare", "{}", "-o", "y.h5ad"], "h5ad"),
    "data check": (["data", "check", "{}"], "toml"),
    "evaluate --toml": (["evaluate", "{run}", "--quiet", "--force", "--toml", "{}"], "toml"),
    "evaluate --embeddings": (["evaluate", "{run}", "--quiet", "--force", "--embeddings", "{}"], "csv"),
    "retrieval --truth": (["retrieval", "{run}", "--quiet", "--truth", "{}"], "json"),
    "gge --real": (["gge", "--real", "{}", "--generated", "{screen}", "--conditions", "gene", "--output", "o"], "h5ad"),
    "gge --generated": (
        ["gge", "--generated", "{}", "--real", "{screen}", "--conditions", "gene", "--output", "o"],
        "h5ad",
    ),
    "report --truth": (["report", "{run}", "--quiet", "-o", "rep", "--truth", "{}"], "json"),
}
FOLDERS = {
    "import-checkpoint": ["import-checkpoint", "{}"],
    "wandb-config": ["wandb-config", "{}"],
    "retrieval": ["retrieval", "{}", "--quiet"],
    "evaluate": ["evaluate", "{}", "--quiet"],
    "compare": ["compare", "{}", "--quiet"],
    "report": ["report", "{}", "--quiet", "-o", "rep"],
    "table1": ["table1", "{}"],
    "table2": ["table2", "{}"],
}
EVIDENCE_RUNS = {
    "explain": ["explain", "{}", "--perturbation", "A", "--context", "a"],
    "design": ["design", "{}", "--budget", "1", "--context", "a"],
    "search": ["search", "{}", "--target", "A:+", "--context", "a"],
    "evidence predict": ["evidence", "predict", "{}", "-o", "x.h5ad"],
    "evidence add": ["evidence", "add", "{}", "{screen}", "-o", "x"],
}
OUTPUTS = {
    "embeddings convert -o": ["embeddings", "convert", "e.csv", "-o", "{}.safetensors"],
    "data split -o": ["data", "split", "{screen}", "--held-out", "{line}", "-o", "{}"],
    "data simulate": ["data", "simulate", "{}", "--preset", "small"],
    "data fetch --to": ["data", "fetch", "genept", "--to", "{}", "--from", "http://127.0.0.1:9"],
    "report -o": ["report", "{run}", "--quiet", "-o", "{}"],
    "retrieval -o": ["retrieval", "{run}", "--quiet", "-o", "{}"],
    "gge --output": ["gge", "--real", "{screen}", "--generated", "{screen}", "--conditions", "gene", "--output", "{}"],
    "compare -o": ["compare", "{run}", "--quiet", "-o", "{}"],
}


@pytest.fixture(scope="module")
def run(screen, runs, tmp_path_factory):
    """A run that retrieves."""
    folder = shutil.copytree(runs["good"], tmp_path_factory.mktemp("wrong") / "good")
    write_retrieval(folder, screen)
    return folder


@pytest.fixture
def answer(screen, run, tmp_path, monkeypatch, capsys):
    """Return a function that runs a command on a wrong path, among files of all kinds, and returns the refusal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_RAG_GENEPT", raising=False)
    monkeypatch.delenv("STATE_RAG_TRACEBACK", raising=False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "e.csv").write_text("A,1,2\nB,2,1\nC,1,1\n")
    for suffix in SUFFIXES:
        (tmp_path / "folder" / f"a.{suffix}").write_text("something")
        (tmp_path / f"empty.{suffix}").touch()
        (tmp_path / f"binary.{suffix}").write_bytes(bytes(range(256)) * 9)

    def ask(arguments, wrong):
        names = {"screen": screen.h5ad, "line": "hepg2", "run": run}
        assert main([part.replace("{}", wrong).format(**names) for part in arguments]) == 1
        error = capsys.readouterr().err
        message = error[error.index("state-rag: error: ") :].strip()
        assert not re.search(r"Errno|Traceback|errno|codec|allow_pickle|weights_only *=? *False", message), message
        return message

    return ask


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["folder", "missing", "empty", "binary"])
def test_what_is_no_such_file_is_refused_by_what_is_expected(name, kind, answer):
    arguments, suffix = FILES[name]
    wrong = "folder" if kind == "folder" else f"{'nothere' if kind == 'missing' else kind}.{suffix}"
    message = answer(arguments, wrong)
    assert re.search(rf"\b{wrong}\b", message)
    if kind == "folder":
        assert "is a folder" in message or f"folder/a.{suffix}" in message  # `data split` takes a folder of files
        assert re.search(rf"a\.{suffix}|7 in all", message)


@pytest.fixture(scope="module")
def evaluated(run):
    assert main(["evaluate", str(run), "--quiet"]) == 0
    return run


@pytest.mark.parametrize("kind", ["folder", "empty", "binary"])
@pytest.mark.parametrize(
    ("inside", "command"),
    [
        ("config.yaml", "evaluate"),
        ("config.yaml", "retrieval"),
        ("eval_last.ckpt/adata_pred.h5ad", "evaluate --force"),
        ("eval_last.ckpt/adata_real.h5ad", "evaluate --force"),
        ("eval_last.ckpt/retrieval_info.csv", "retrieval"),
        ("eval_last.ckpt/gge/results.csv", "compare"),
        ("eval_last.ckpt/gge/baselines.csv", "evaluate"),
        ("eval_last.ckpt/gge/profiles.npz", "report -o rep"),
        ("version_0/metrics.csv", "report -o rep"),
    ],
)
def test_what_is_damaged_within_a_run_is_named(inside, command, kind, evaluated, answer, tmp_path):
    copy = shutil.copytree(evaluated, tmp_path / "copy")
    (copy / inside).unlink(missing_ok=True)
    (copy / inside).parent.mkdir(exist_ok=True)
    if kind == "folder":
        (copy / inside).mkdir()
    else:
        (copy / inside).write_bytes(b"" if kind == "empty" else bytes(range(256)) * 9)
    verb, *options = command.split()
    message = answer([verb, str(copy), "--quiet", *options], "")
    assert inside.split("/")[-1] in message or "holds no run" in message or "no predictions" in message


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("wrong", ["folder", "nothere", "e.csv"])
def test_what_is_no_run_or_sweep_is_refused_by_what_is_expected(name, wrong, answer):
    message = answer(FOLDERS[name], wrong)
    assert wrong in message
    assert re.search(r"expected|Give the folder|Name the folder|name the folder|Name a run|it has no", message), message


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_file_where_a_folder_is_needed_for_the_result_is_named(name, answer):
    message = answer(OUTPUTS[name], "e.csv/below")
    assert "e.csv" in message
    assert re.search("is a file|not a directory", message)


def test_a_folder_is_told_with_the_files_in_it_that_fit(answer):
    assert answer(["data", "check", "{}"], "folder") == (
        "state-rag: error: folder is a folder; expected a split file (.toml). It holds a.toml."
    )


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_spelled_alike_is_named(name, answer):
    arguments, suffix = FILES[name]
    message = answer(arguments, f"binry.{suffix}")
    assert f"close spellings: binry.{suffix} -> binary.{suffix}" in message
    assert "Ways to get embeddings" not in message


@pytest.mark.parametrize("name", [*FOLDERS, *EVIDENCE_RUNS])
def test_a_folder_that_is_spelled_alike_is_named(name, answer):
    assert "close spellings: foldr -> folder" in answer({**FOLDERS, **EVIDENCE_RUNS}[name], "foldr")
    assert "there is no folder foldr either; close spellings: foldr -> folder" in answer(
        {**FOLDERS, **EVIDENCE_RUNS}[name], "foldr/run"
    )


def test_a_cell_line_that_is_spelled_alike_is_named(answer):
    for more in ([], ["--held-out-perturbations", ".2"]):
        said = answer(["data", "split", "{screen}", "--held-out", "{}", "-o", "out.toml", *more], "hepg22")
        assert "close spellings: hepg22 -> hepg2" in said
