from state_rag.names import listing, suggest


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
