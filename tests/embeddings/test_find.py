import pytest

from state_rag.embeddings.find import DEFAULT_PATHS, ENVIRONMENT, PUBLISHED_FILE, find_embeddings
from state_rag.errors import StateRagError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_the_path_given_wins_over_environment_and_defaults(here):
    given = touch(here / "given.csv")
    touch(here / DEFAULT_PATHS[0])
    assert find_embeddings("given.csv", {ENVIRONMENT: "other.csv"}).samefile(given)


@pytest.mark.parametrize("path", [None, ""])
def test_the_environment_wins_over_the_defaults(here, path):
    named = touch(here / "named.csv")
    touch(here / DEFAULT_PATHS[0])
    assert find_embeddings(path, {ENVIRONMENT: str(named)}) == named


@pytest.mark.parametrize("place", DEFAULT_PATHS)
def test_the_published_file_is_found_at_each_default_place(here, place):
    expected = touch(here / place.replace("~", "home"))
    assert find_embeddings(None, {"HOME": str(here / "home")}).samefile(expected)


def test_a_folder_stands_for_the_published_file_in_it(here):
    inside = touch(here / "data" / PUBLISHED_FILE)
    assert find_embeddings("data", {}).samefile(inside)
    (here / "empty").mkdir()
    with pytest.raises(StateRagError, match=f"is a folder without {PUBLISHED_FILE}"):
        find_embeddings("empty", {})


def test_a_missing_path_is_an_error_even_if_a_default_exists(here):
    touch(here / DEFAULT_PATHS[0])
    with pytest.raises(StateRagError, match="nothing.csv: the embedding file that was asked for does not exist"):
        find_embeddings("nothing.csv", {})
    with pytest.raises(StateRagError, match=f"nothing.csv: the embedding file that {ENVIRONMENT} names does not exist"):
        find_embeddings(None, {ENVIRONMENT: "nothing.csv"})


def test_with_nothing_to_find_the_error_lists_the_ways_of_getting_embeddings(here):
    with pytest.raises(StateRagError) as caught:
        find_embeddings(None, {"HOME": str(here)})
    for part in (
        *DEFAULT_PATHS,
        ENVIRONMENT,
        "zenodo.org/records/10833191",
        "state-rag embeddings build",
        "genept_path",
    ):
        assert part in str(caught.value)
