"""Stands in for `state tx train`, `state tx predict` and `state-rag evaluate`: writes what they leave, in no time.

What it is told to do differently comes through the environment variable STAND_IN, such as ``fail=train``.
"""

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path


def write_checkpoint(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", text)


def read_checkpoint(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("data").decode()


def evaluate(predictions: Path) -> None:
    (predictions / "gge").mkdir(parents=True, exist_ok=True)
    aggregates = {"pearson_delta_mean": 0.25}
    (predictions / "gge" / "summary.json").write_text(json.dumps({"splits": {"test": {"aggregates": aggregates}}}))


def main(arguments: list[str]) -> None:
    print("stand-in:", *arguments)
    print("threads", os.environ.get("OMP_NUM_THREADS"), "group", os.environ.get("WANDB_RUN_GROUP"))
    orders = os.environ.get("STAND_IN", "")
    if f"fail={arguments[1] if arguments[0] == 'tx' else arguments[0]}" in orders:
        print("state-rag: error: told to fail")
        sys.exit(3)
    if arguments[:2] == ["tx", "train"]:
        keys = dict(text.split("=", 1) for text in arguments[2:])
        checkpoints = Path(keys["output_dir"].strip("'"), keys["name"], "checkpoints")
        if keys["overwrite"] == "true":
            shutil.rmtree(checkpoints, ignore_errors=True)
        last = checkpoints / "last.ckpt"
        text = f"trained on from {read_checkpoint(last)}" if last.exists() else "trained"
        if "no last" not in orders:
            write_checkpoint(checkpoints / ("last-v1.ckpt" if "count up" in orders else "last.ckpt"), text)
        write_checkpoint(checkpoints / "final.ckpt", text)
    elif arguments[:2] == ["tx", "predict"]:
        run = Path(arguments[arguments.index("--output-dir") + 1])
        predictions = run / f"eval_{arguments[arguments.index('--checkpoint') + 1]}"
        predictions.mkdir(parents=True)
        if "--eval-genept-pert" in arguments:
            evaluate(predictions)
    else:
        evaluate(Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
