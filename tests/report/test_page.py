from matplotlib.figure import Figure

from state_rag.report.page import Report


def test_pictures_of_runs_whose_names_differ_in_punctuation_or_case_have_files_of_their_own(tmp_path):
    report = Report("t", tmp_path)
    names = [report.file_name("cells", run) for run in ("a-b", "a_b", "A_B", "a b")]
    assert names[0] == "cells_a_b"
    assert len({name.lower() for name in names}) == 4
    assert report.file_name("cells", "a_b") == names[1]


def test_a_long_name_still_makes_a_file_name(tmp_path):
    assert len(Report("t", tmp_path).file_name("cells", "x" * 400)) < 200


def written(folder, *names):
    """Write a page with some pictures."""
    report = Report("t", folder)
    for name in names:
        report.picture(report.file_name("cells", name), Figure(figsize=(1, 1)), "c")
    report.write()
    return {path.name for path in (folder / "plots").iterdir()}


def test_pictures_that_only_the_earlier_page_had_go_and_foreign_files_stay(tmp_path):
    assert written(tmp_path, "old", "é", "kept") >= {"cells_old.png", "cells_é.svg"}
    (tmp_path / "plots/cells_mine.png").write_text("")
    (tmp_path / "plots/cells_old.pdf").write_text("")
    assert written(tmp_path, "kept", "new") == {
        *(f"cells_{name}.{suffix}" for name in ("kept", "new") for suffix in ("png", "svg")),
        "cells_mine.png",
        "cells_old.pdf",
    }


def test_a_page_that_names_no_pictures_or_other_places_makes_nothing_go(tmp_path):
    (tmp_path / "plots").mkdir()
    outside = [tmp_path / "x.png", tmp_path / "plots/y.png"]
    for path in outside:
        path.write_text("")
    (tmp_path / "index.html").write_text('<meta name="state-rag-pictures" content="../x y">')
    written(tmp_path, "a")
    (tmp_path / "index.html").write_text("<p>y</p>")
    written(tmp_path, "a")
    assert all(path.is_file() for path in outside)
