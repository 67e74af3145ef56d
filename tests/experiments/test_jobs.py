import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from state_rag.errors import StateRagError
from state_rag.experiments.jobs import Job, read_job, read_jobs, record_path, write_job


def a_job(folder: Path, name: str = "ptrag-hepg2-k8-seed0", **changes: object) -> Job:
    job = Job(
        name=name,
        method="differentiable",
        preset="ptrag",
        held_out="hepg2",
        topk=8,
        seed=0,
        status="finished",
        run_folder=folder / "runs" / name,
        predictions=folder / "runs" / name / "eval_best.ckpt",
        overrides=("rag=ptrag", "training.topk_rag=8"),
        fingerprint="ab" * 32,
        log=folder / "jobs" / f"{name}.log",
        seconds=12.5,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def test_a_record_reads_back_as_it_was_written(tmp_path):
    waiting = a_job(tmp_path, "a", status="waiting", topk=None, method="none", predictions=None, seconds=None)
    failed = a_job(tmp_path, "b", status="failed", error="predict ended with status 1")
    for job in (failed, waiting):
        write_job(tmp_path, job)

    assert read_jobs(tmp_path) == [waiting, failed]
    assert read_job(tmp_path, "b") == failed


def test_a_sweep_that_was_moved_names_its_files_where_they_are_now(tmp_path):
    write_job(tmp_path / "old", a_job(tmp_path / "old"))
    shutil.move(tmp_path / "old", tmp_path / "new")

    (job,) = read_jobs(tmp_path / "new")

    assert job == a_job(tmp_path / "new")


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda path: None, "does not exist: it is no sweep"), (Path.mkdir, "no folder `jobs`: it is no")],
)
def test_a_folder_without_jobs_is_no_sweep(tmp_path, make, said):
    make(tmp_path / "x")

    with pytest.raises(StateRagError, match=said):
        read_jobs(tmp_path / "x")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_record_is_named(tmp_path, text):
    path = write_job(tmp_path, a_job(tmp_path))
    path.write_text(text)

    with pytest.raises(StateRagError, match=str(path)):
        read_jobs(tmp_path)


def test_an_unknown_status_is_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="done"):
        write_job(tmp_path, a_job(tmp_path, status="done"))
    assert not record_path(tmp_path, "ptrag-hepg2-k8-seed0").exists()

    path = write_job(tmp_path, a_job(tmp_path))
    path.write_text(path.read_text().replace('"finished"', '"done"'))
    with pytest.raises(StateRagError, match="done"):
        read_jobs(tmp_path)
