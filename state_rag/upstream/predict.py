"""`state tx predict`: find the run, take its knowledge from the checkpoint, limit the test set, write the trace."""

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from state_rag.datasets.splitting.splits import SplitSummary, check_split
from state_rag.engine.folder import is_evidence_run
from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge
from state_rag.run_folders import TRUST, split_file
from state_rag.settings import TEXT
from state_rag.threads import torch_threads_kept
from state_rag.upstream import network_flags
from state_rag.upstream.flops import FlopStats
from state_rag.upstream.further_sources import engine_files, given_files, informed, with_further
from state_rag.upstream.knowledge_source import (
    load_embeddings,
    refuse_or_report,
    save_missing,
)
from state_rag.upstream.retrieval_info import RetrievalInfo
from state_rag.upstream.run_contract import check_files, of_run
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint
from state_rag.upstream.swap import any_head_count, replaced, unclipped_copies, whole_h5ad_files
from state_rag.upstream.training.train import is_disk_full

if TYPE_CHECKING:
    from state_rag.anchor import Anchor
    from state_rag.evidence.prediction import Prediction
    from state_rag.upstream.sets.fast_predict import FastPrediction

logger = logging.getLogger(__name__)


def run(original: Callable[[Namespace], Any], args: Namespace) -> Any:
    """Predict; a run without embeddings, and none of our flags, is left to STATE alone."""
    found = find_run(args.output_dir)
    args.output_dir = str(found.folder)
    if is_evidence_run(found.config):
        return _predict_evidence(args, found)
    if args.max_batches is not None and args.max_batches < 1:
        raise StateRagError(f"--max-batches {args.max_batches} predicts nothing. Use a value of at least 1.")
    ours = args.eval_genept_pert or args.count_flops or args.max_batches is not None or args.toml or found.has_moved
    ours = ours or not Path(str(found.data.get("toml_config_path"))).is_file()
    if found.settings.mode == "none" and not ours:
        _warn_of_data(found)
        with any_head_count():
            return original(args)
    return _predict(original, args, found)


def _predict_evidence(args: Namespace, found: Run) -> None:
    """Predict with the evidence engine alone; no network, and so no batches or operations to count."""
    from state_rag.engine.called import calls_file
    from state_rag.engine.folder import read_run
    from state_rag.engine.further import with_files
    from state_rag.engine.predict import RETRIEVED, predict

    network_flags.refuse(args, network_flags.PREDICT, found.folder)
    engine = read_run(found.folder)
    # embeddings that only limit what is tested need be none of the run's
    text = args.genept_path if TEXT in engine.engine.similarity.names else None
    engine = with_files(engine, engine_files(text, args.sources))
    if engine.identity is None:
        raise StateRagError(
            f"{found.folder} was fitted on a table of effects, without cells, so no cells can be predicted. Effects "
            f"can: `state-rag evidence predict {found.folder} -o predicted.h5ad`."
        )
    split = Path(toml_path(found, args.toml))
    summary = check_run_split(found, args.toml)
    if engine.identity is not None:
        check_files(found, engine.identity, summary.files, refuse=True)
    keep = None
    if args.eval_genept_pert:
        source = found.settings.genept_path if args.genept_path is None else args.genept_path
        keep = set(load_embeddings(source, set(summary.perturbations), found.settings.genept_text_width).names)
    results = found.folder / f"{'eval_train_' if args.eval_train_data else 'eval_'}{Path(args.checkpoint).name}"
    predict(engine, split, results, keep=keep, train=args.eval_train_data)
    logger.info("Results: %s", results)
    logger.info("What each prediction draws on: %s", results / RETRIEVED)
    if (results / TRUST).is_file():
        _tell_trust(results / TRUST)
    if (called := calls_file(results)) is not None:
        _tell_calls(called)
    if args.eval_genept_pert and not args.no_gge:
        # predicted cells carry labels where the run tells modes, doses or times, and are no others
        _evaluate(args, found, results, None if engine.engine.bank.treatments is not None else keep)
    else:
        logger.info("Next: state-rag evaluate %s", found.folder)


def _warn_of_data(found: Run) -> None:
    """Warn of data that are not what a run of plain STATE was trained on; STATE predicts all the same."""
    try:
        identity = of_run(found)
        if identity is not None:
            check_files(found, identity, check_run_split(found, None).files, refuse=False)
    except StateRagError as error:
        logger.warning("The data could not be checked: %s", error)


def _predict(original: Callable[[Namespace], Any], args: Namespace, found: Run) -> Any:
    split = check_run_split(found, args.toml)
    checkpoint = read_checkpoint(found.folder / "checkpoints" / args.checkpoint)
    if (identity := of_run(found, checkpoint)) is not None:
        check_files(found, identity, split.files, refuse=found.settings.mode != "none")
    given = {} if found.settings.mode == "none" else given_files(args.genept_path, args.sources, found.settings)
    knowledge, keep, missing = _choose(found, args, split, checkpoint, given)

    import state.tx.models.state_transition as state_transition
    from cell_load import data_modules

    from state_rag.checkpoint import CHECKPOINT_KEY
    from state_rag.model import RagStateTransition
    from state_rag.upstream.data_module import LimitedDataModule
    from state_rag.upstream.sets.grouped_sets import keep_trace

    results = found.folder / f"{'eval_train_' if args.eval_train_data else 'eval_'}{Path(args.checkpoint).name}"
    with ExitStack() as stack:
        fast = None if knowledge is None else _fast(args, found, results)
        limited = LimitedDataModule.limited_to(
            keep,
            max_test_sets=args.max_batches,
            toml=toml_path(found, args.toml),
            test_loader=None if fast is None else fast.loader,
        )
        stack.enter_context(any_head_count())
        stack.enter_context(whole_h5ad_files())
        if found.data.get("output_space") == "embedding" and found.data.get("embed_key"):
            stack.enter_context(unclipped_copies(found.data["embed_key"]))
        stack.enter_context(replaced(data_modules, "PerturbationDataModule", limited))
        stack.enter_context(replaced(yaml, "safe_load", _config_as_if_unmoved(found)))
        info = None
        foretold: list[Prediction] = []
        model = state_transition.StateTransitionPerturbationModel
        if knowledge is not None:
            if found.settings.retrieves:
                genes = checkpoint["hyper_parameters"].get("gene_names") or []
                info = stack.enter_context(RetrievalInfo(results / "retrieval_info.csv", found.control, list(genes)))
            part = "train" if args.eval_train_data else "test"
            asked = _conditions(split, part, keep)

            def foretell(anchor: "Anchor") -> None:
                names = sorted({name for several in asked.values() for name in several})
                informed(anchor, found, checkpoint[CHECKPOINT_KEY], names, given)
                foretold.extend(anchor.foretell(line, names) for line, names in asked.items())

            sink = info.add if info else None
            kept = keep_trace if fast is not None and sink is not None else sink
            model = RagStateTransition.bound_to(knowledge, trace_sink=kept, anchor_sink=foretell)
            if fast is not None:
                model = fast.model(model, sink)
                stack.enter_context(fast.running())
        if args.count_flops:
            model = stack.enter_context(FlopStats(results / "flops_stats.json")).counting(model)
        stack.enter_context(replaced(state_transition, "StateTransitionPerturbationModel", model))
        try:
            with torch_threads_kept():  # STATE's evaluation runs Numba's parallel functions, ours follows
                outcome = original(args)
        except Exception as error:
            if is_disk_full(error):
                raise StateRagError(
                    f"The disk is full, or a limit on file sizes was reached, while writing to {results}. Files that "
                    "were not complete have been removed. Make room and predict again."
                ) from error
            raise
    save_missing(results, missing)
    trust = _add_trust(found, foretold, results)
    logger.info("Results: %s", results)
    if trust is not None:
        _tell_trust(trust)
    if (called := _write_calls(foretold, results)) is not None:
        _tell_calls(called)
    if info is not None:
        logger.info("What was retrieved for each cell: %s", info.path)
    if args.eval_genept_pert and not args.no_gge:
        _evaluate(args, found, results, keep)
    return outcome


def _fast(args: Namespace, found: Run, results: Path) -> "FastPrediction | None":
    """Return what predicts many sets at a time; None where sets are fine-tuned on, or counted, one by one."""
    if args.test_time_finetune or args.count_flops:
        return None
    from state_rag.upstream.sets.fast_predict import FastPrediction

    streamed = args.predict_only and not (args.skip_adatas or args.pseudobulk or args.shared_only)
    return FastPrediction(results, found.data, found.settings, streamed)


def _conditions(split: SplitSummary, part: str, keep: set[str] | None) -> dict[str, list[str]]:
    """Return the perturbations of a part of the split, by cell line."""
    asked: dict[str, list[str]] = {}
    for own, line, name in sorted(split.conditions):
        if own == part and (keep is None or name in keep):
            asked.setdefault(line, []).append(name)
    return asked


def _add_trust(found: Run, foretold: "Sequence[Prediction]", results: Path) -> Path | None:
    """Say in the predicted cells how far the means that they are anchored on can be trusted."""
    if not foretold:
        return None
    from state_rag.effects.conditions import Columns
    from state_rag.engine.trust_table import add_trust

    data = found.data
    return add_trust(foretold, results, Columns.of(data))


def _write_calls(foretold: "Sequence[Prediction]", results: Path) -> Path | None:
    """Write which genes the means that the cells are anchored on change, where the engine knows; remove what was."""
    if not foretold:
        return None
    from state_rag.engine.called import calls_table, remove_calls, write_calls

    known = [found for found in foretold if found.calls is not None]
    if not known:
        remove_calls(results)
        return None
    return write_calls(map(calls_table, known), results)


def _tell_calls(path: Path) -> None:
    logger.info("Which genes each condition changes: %s", path)


def _tell_trust(path: Path) -> None:
    logger.info("How far each condition can be trusted: %s", path)


def _evaluate(args: Namespace, found: Run, results: Path, keep: set[str] | None) -> None:
    """Compute our metrics, with naive baselines, from the predictions that STATE has just written."""
    if args.skip_adatas:
        logger.info("--skip-adatas left no predictions to evaluate in GGE's layout.")
        return
    from state_rag.evaluation.run_evaluation import evaluate_run
    from state_rag.evaluation.runs import find_run as find_predictions
    from state_rag.evaluation.to_wandb import send_evaluation

    predictions = find_predictions(results)
    folder = evaluate_run(
        predictions,
        toml=toml_path(found, args.toml),
        embeddings=args.genept_path,
        with_evidence=args.evidence,
        keep=keep,
    )
    printed = f"state-rag evaluate {found.folder}"
    logger.info("Metrics and naive baselines: %s (print them with `%s`)", folder, printed)
    send_evaluation(predictions, folder)


def _choose(
    found: Run, args: Namespace, split: SplitSummary, checkpoint: Mapping[str, Any], given: Mapping[str, Path]
) -> tuple[Knowledge | None, set[str] | None, list[str]]:
    """Return the knowledge, the perturbations to keep (None: all), and those of the test set that are left out."""
    wanted = set(split.perturbations)
    knowledge = None
    if found.settings.mode != "none":
        from state_rag.checkpoint import CHECKPOINT_KEY, read_knowledge

        knowledge = read_knowledge(checkpoint)
        unknown = wanted - set(knowledge.names)
        needed = given or unknown & set(split.test_perturbations)
        saved = checkpoint[CHECKPOINT_KEY].get("sources")
        knowledge = with_further(knowledge, unknown if needed else (), found.settings, saved, given)
        known = wanted & set(knowledge.names)
    elif args.eval_genept_pert:
        known = set(load_embeddings(args.genept_path, wanted, found.settings.genept_text_width).names)
    else:
        return None, None, []
    missing = sorted(set(split.test_perturbations) - known)
    if not args.eval_genept_pert:
        refuse_or_report(missing, found.settings, len(split.test_perturbations))
    else:
        logger.info(
            "--eval-genept-pert: %d of %d test perturbations have an embedding.",
            len(split.test_perturbations) - len(missing),
            len(split.test_perturbations),
        )
    if not args.eval_train_data and len(missing) == len(split.test_perturbations):
        raise StateRagError(
            "No test perturbation has an embedding, so there is nothing to predict. Give embeddings for some of "
            f"{', '.join(missing[:10])} with --genept-path."
        )
    return knowledge, known, missing


def toml_path(found: Run, given: str | None) -> str:
    """Return the split file: the one given, else the run's."""
    return given or str(split_file(found.folder, found.data.get("toml_config_path")))


def check_run_split(found: Run, given: str | None) -> SplitSummary:
    """Check the split and the data files that it names, before STATE opens them."""
    data = found.data
    try:
        return check_split(
            toml_path(found, given),
            pert_col=data["pert_col"],
            cell_type_key=data["cell_type_key"],
            batch_col=data["batch_col"],
            control_pert=found.control,
            embed_key=data["embed_key"],
        )
    except StateRagError as error:
        if given:
            raise
        raise StateRagError(
            f"{error} If the data have moved, name a split file that points to them with --toml."
        ) from error


def _config_as_if_unmoved(found: Run) -> Callable[[Any], Any]:
    """Return a YAML reader that shows STATE the run's configuration with the folder that it lies in now."""
    read = yaml.safe_load

    def safe_load(stream: Any) -> Any:
        values = read(stream)
        name = getattr(stream, "name", None)
        if isinstance(values, dict) and name and Path(name).resolve() == (found.folder / "config.yaml").resolve():
            folder = found.folder.resolve()
            values["output_dir"], values["name"] = str(folder.parent), folder.name
        return values

    return safe_load
