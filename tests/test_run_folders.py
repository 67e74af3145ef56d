import pytest

from state_rag.errors import StateRagError
from state_rag.evaluation import runs
from state_rag.run_folders import find_run_folder
from state_rag.upstream import run_folder


def make(folder):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("data: {kwargs: {}}\n")
    return folder


def test_a_run_stands_for_itself_and_the_only_run_of_a_folder_for_the_folder(tmp_path):
    run = make(tmp_path / "runs" / "a")
    assert find_run_folder(run) == run
    assert find_run_folder(run.parent) == run


def test_every_command_refuses_a_folder_of_several_runs_in_the_same_words(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / name)
    said = []
    for find in (find_run_folder, runs.find_run, lambda folder: run_folder.find_run(folder, "")):
        with pytest.raises(StateRagError) as refused:
            find(tmp_path)
        said.append(str(refused.value))
    assert said == [f"{tmp_path} holds 2 runs (a, b). Name one of them."] * 3


def test_a_run_that_is_spelled_alike_is_named(tmp_path):
    make(tmp_path / "runs" / "ptrag")
    with pytest.raises(StateRagError, match="ptrg does not exist; close spellings: ptrg -> ptrag. Give"):
        find_run_folder(tmp_path / "runs" / "ptrg")
    with pytest.raises(StateRagError, match=f"there is no folder {tmp_path}/rns either; close spellings: rns -> runs"):
        find_run_folder(tmp_path / "rns" / "ptrag")


def test_the_flag_is_named(tmp_path):
    with pytest.raises(StateRagError, match=r"^--output-dir .*absent does not exist"):
        find_run_folder(tmp_path / "absent", "--output-dir")
