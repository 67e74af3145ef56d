"""The files that `state-rag search` writes."""

from pathlib import Path

import pandas as pd

from state_rag.evidence.choices.search import Search
from state_rag.files import atomic_path
from state_rag.planning.search import candidates_table, search_table
from state_rag.plot.search import search_figure
from state_rag.plot.style import save_figure


def write_search(found: Search, folder: Path) -> list[Path]:
    """Write the best candidates, all of them, the effects of the best, and a picture; return what was written."""
    names = found.perturbations[: len(found.effects)]
    effects = pd.DataFrame(found.effects.T, index=pd.Index(found.genes, name="gene"), columns=list(names))
    effects.insert(0, "target", found.target)
    tables = {
        "search.csv": search_table(found),
        "candidates.csv": candidates_table(found),
        "effects.csv": effects.reset_index(),
    }
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, index=False)
    save_figure(search_figure(found), folder, "search")
    return [folder / name for name in (*tables, "search.png", "search.svg")]
