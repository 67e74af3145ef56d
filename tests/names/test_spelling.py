import random

from state_rag.names import listing, spelling, suggest


def test_a_long_list_of_names_is_cut_with_the_count():
    assert listing(f"G{i}" for i in range(12)) == "G0, G1, G2, G3, G4, ... (12 in all)"
    assert listing(["a"], 2) == "a"


def test_close_spellings_ignore_case():
    assert suggest(["copb1"], ["HARS", "COPB1"]) == "; close spellings: copb1 -> COPB1"


def test_aged_gene_symbols_and_wrong_case_are_suggested():
    assert "AARS1 -> AARS" in suggest(["AARS1"], ["AARS", "ZZZ"])
    assert "kars -> KARS" in suggest(["kars"], ["AARS", "KARS"])
    assert suggest(["XYZ"], ["AARS"]) == ""


def test_one_wrong_letter_of_three_is_close():
    assert suggest(["mze"], ["pearson", "mse"]) == "; close spellings: mze -> mse"


def test_of_many_names_those_with_most_letters_in_common_are_compared_with_the_same_answer(monkeypatch):
    draw = random.Random(0)
    letters = "ABCDEµ0123"
    names = list({"".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(3000)})
    asked = ["ABBA12", "é", "0123", "A" * 70]
    whole = [suggest([name], names) for name in asked]
    monkeypatch.setattr(spelling, "COMPARED", 2500)
    monkeypatch.setattr(spelling, "BLOCK", 700)
    assert [suggest([name], names) for name in asked] == whole
    monkeypatch.setattr(spelling, "COMPARED", 20)
    assert suggest(["ABBA12"], [*names, "ABBA122"]).startswith("; close spellings: ABBA12 -> ABBA122")
