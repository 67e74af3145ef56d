"""Screens in memory whose truth is known: activation that is minus knock-down, and drugs with a dose-response curve."""

import numpy as np

from state_rag.evidence.responses import Responses
from state_rag.names.treatments import Treatment, label_of

DOSES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def opposites(seed=0, perturbations=24, genes=40, sign=-1.0):
    """Return effects by (context, label), and embeddings: two lines are activated, two knocked down."""
    rng = np.random.default_rng(seed)
    module = np.arange(perturbations) % 6
    shared, single = rng.normal(size=(6, genes)), 0.6 * rng.normal(size=(perturbations, genes))
    effects = {}
    for context, mode in (("a", "CRISPRa"), ("b", "CRISPRa"), ("c", "CRISPRi"), ("d", "CRISPRi")):
        own = 0.4 * rng.normal(size=(6, genes))
        for number in range(perturbations):
            effect = shared[module[number]] + own[module[number]] + single[number]
            effect = (1.0 if mode == "CRISPRa" else sign) * effect + 0.3 * rng.normal(size=genes)
            effects[context, label_of(f"P{number}", Treatment(mode))] = effect
    vectors = np.eye(6)[module] + 0.1 * rng.normal(size=(perturbations, 6))
    return effects, {"text": ([f"P{number}" for number in range(perturbations)], vectors)}


def curves(seed=0, drugs=16, genes=40, noise=0.1):
    """Return measured and true effects by (context, label): a drug has a profile, and half of it at a dose of its own.

    Two doses of half of the drugs are not measured in line `a`.
    """
    rng = np.random.default_rng(seed)
    profile, half = rng.normal(size=(drugs, genes)), 10 ** rng.uniform(-1.5, 0.5, size=drugs)
    measured, truth = {}, {}
    for context in "ab":
        own = 0.4 * rng.normal(size=(drugs, genes))
        for drug in range(drugs):
            for dose in DOSES:
                share = dose**1.2 / (dose**1.2 + half[drug] ** 1.2)
                key = context, label_of(f"D{drug}", Treatment(dose=dose))
                truth[key] = share * (profile[drug] + own[drug])
                if not (context == "a" and drug % 2 == 0 and dose in (0.1, 1.0)):
                    measured[key] = truth[key] + noise * rng.normal(size=genes)
    return measured, truth


def responses(effects, treated=True, **more):
    """Return effects by (context, label) as responses; names alone where they are not to be told apart."""
    labels = [label if treated else label.partition(":")[0] for _, label in effects]
    return Responses(
        np.stack([*effects.values()]), [context for context, _ in effects], labels, treated=treated, **more
    )
