import subprocess

from state_rag.tracking.provenance import file_fingerprints, git_revision, package_versions


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_revision_is_the_commit_and_whether_tracked_files_differ(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision(tmp_path) == {"commit": commit, "modified": False}
    (tmp_path / "untracked").write_text("x")
    assert git_revision(tmp_path)["modified"] is False
    (tmp_path / "a").write_text("2")
    assert git_revision(tmp_path) == {"commit": commit, "modified": True}


def test_outside_a_repository_there_is_no_revision(tmp_path):
    assert git_revision(tmp_path) is None


def test_packages_that_are_not_installed_are_left_out():
    found = package_versions(["torch", "no-such-package-at-all"])
    assert set(found) == {"torch"}


def test_a_copy_of_a_file_has_its_fingerprint_and_a_changed_one_has_not(tmp_path):
    for folder, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.h5ad").write_bytes(content)
    a, b, c = (file_fingerprints([tmp_path / folder / "x.h5ad"])["x.h5ad"] for folder in "abc")
    assert a == b != c


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path):
    paths = [tmp_path / folder / "x.h5ad" for folder in "ab"] + [tmp_path / "y.h5ad"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(path))
    assert list(file_fingerprints([*paths, paths[2]])) == [str(paths[0]), str(paths[1]), "y.h5ad"]
