"""Whether the evidence engine knows how right it is: expected against observed accuracy, and coverage of intervals.

    python benchmarks/trust_accuracy.py --data replogle --mode few-shot unseen
    python benchmarks/trust_accuracy.py --data tahoe --mode few-shot zero-shot
    python benchmarks/trust_accuracy.py --data simulate --mode few-shot zero-shot unseen -o trust.csv

Cases are those of `evidence_accuracy.py`, whose options these are. A row a case: Spearman correlation of the observed
Pearson correlation (over genes) of each test perturbation with the expected one and its score, beside naive scores
(size of the predicted effect; kriging variance, its sign turned); share of test perturbations whose observed
correlation is in the 90 % interval, mean width of these; share of genes whose measured effect is within 1.645
deviations of the predicted one, of all and by quintile of the size of the predicted effect, and by quintile of the
predicted size of the gene's effect; share of predictions that calibration is said to hold for, and their coverage.
"""

import time
from typing import Any

import numpy as np
from evidence_accuracy import Case, about, cases, correlations, parse, write
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from state_rag.evidence.estimator import Evidence
from state_rag.evidence.trust.model import NORMAL

QUINTILES = 5


def main() -> None:
    """Judge every case and print the table."""
    options = parse(__doc__)
    rows: list[dict[str, Any]] = []
    for case in cases(options):
        rows.append(judged(case, options.training_seed))
        Console().print(table(rows[-1]))
        if options.output:
            write(options.output, rows)


def judged(case: Case, seed: int) -> dict[str, Any]:
    """Return a case's row."""
    start = time.perf_counter()
    engine = Evidence(seed=seed).fit(case.responses, case.embeddings, uses=[case.mode])
    fitted = time.perf_counter() - start
    found = engine.predict(case.context, case.test)
    trust = found.trust
    row: dict[str, Any] = {**about(case), "n": len(case.test), "seconds": fitted}
    observed = correlations(found.mean, case.truth)
    size = np.sqrt(np.square(found.mean).mean(1))
    row |= {
        "observed": observed.mean(),
        "by_size": rank(size, observed),
        "by_variance": rank(-found.variance, observed),
    }
    if trust is None:
        return row
    row |= {"by_score": rank(trust.score, observed), "calibrated": trust.calibrated, "holds": trust.holds.mean()}
    if not trust.calibrated:
        return row
    inside = (observed >= trust.low) & (observed <= trust.high)
    genes = np.abs(case.truth - found.mean) <= NORMAL * trust.std
    row |= {
        "by_expected": rank(trust.expected, observed),
        "expected": trust.expected.mean(),
        "covered": inside.mean(),
        "covered_where_it_holds": inside[trust.holds].mean() if trust.holds.any() else np.nan,
        "width": (trust.high - trust.low).mean(),
        "genes_covered": genes.mean(),
    }
    for name, value, good in (("effects", size, genes.mean(1)), ("genes", np.abs(found.mean).ravel(), genes.ravel())):
        for number, part in enumerate(np.array_split(np.argsort(value, kind="stable"), QUINTILES), 1):
            row[f"{name}_quintile_{number}"] = good[part].mean()
    return row


def rank(score: np.ndarray, observed: np.ndarray) -> float:
    """Return Spearman's correlation; 0 for a constant score."""
    return float(spearmanr(score, observed).statistic) if np.ptp(score) > 0 else 0.0


def table(row: dict[str, Any]) -> Table:
    """Return a case's row for the terminal, standing upright."""
    shown = Table(title=f"{row['data']}, {row['held_out']} held out, {row['mode']}, seed {row['seed']}")
    for column in ("measure", "value"):
        shown.add_column(column, justify="left" if column == "measure" else "right")
    for name in list(row)[4:]:
        shown.add_row(name, f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]))
    return shown


if __name__ == "__main__":
    main()
