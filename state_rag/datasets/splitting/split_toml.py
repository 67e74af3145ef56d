"""Read and write split TOMLs: which data, and which cell lines and perturbations are held out."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toml

from state_rag.errors import StateRagError
from state_rag.files import atomic_path, keep_other, read_text, reason
from state_rag.names import listing, suggest

_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The contents of a split TOML.

    Attributes
    ----------
    path
        The TOML file.
    datasets
        Name -> path, folder or glob pattern, of the data sets that the other tables refer to.
    training
        Names of the data sets whose remaining cell lines are for training.
    zeroshot
        (data set, cell line) -> `train`, `val` or `test`.
    fewshot
        (data set, cell line) -> `val` and `test` lists of perturbations.
    """

    path: Path
    datasets: dict[str, str]
    training: frozenset[str]
    zeroshot: dict[tuple[str, str], str]
    fewshot: dict[tuple[str, str], dict[str, list[str]]]

    def trains_on(self, dataset: str, cell_line: str, perturbation: str) -> bool:
        """Return whether perturbed cells of this kind are training cells."""
        key = (dataset, cell_line)
        if key in self.zeroshot:
            return self.zeroshot[key] == "train"
        if key in self.fewshot:
            return all(perturbation not in self.fewshot[key].get(part, ()) for part in ("val", "test"))
        return dataset in self.training

    def tests(self, dataset: str, cell_line: str, perturbation: str) -> bool:
        """Return whether perturbed cells of this kind are test cells."""
        key = (dataset, cell_line)
        if key in self.zeroshot:
            return self.zeroshot[key] == "test"
        return perturbation in self.fewshot.get(key, {}).get("test", ())

    @property
    def tested_lines(self) -> list[str]:
        """Return the cell lines of which perturbations are tested, sorted."""
        lines = {line for (_, line), lists in self.fewshot.items() if lists.get("test")}
        return sorted(lines | {line for (_, line), part in self.zeroshot.items() if part == "test"})


def read_split(path: str | os.PathLike[str]) -> Split:
    """Read a split TOML, with the parser that upstream uses, and check its form; the data are not opened.

    Raises
    ------
    StateRagError
        If the file is missing or not valid TOML, or a table is not of the form that upstream reads.
    """
    path = Path(path)
    written = f"Write one with `state-rag data split FILE --held-out LINE -o {path}`."
    text = read_text(path, "a split file", (".toml",), remedy=written)
    try:
        content = toml.loads(text)
    except (toml.TomlDecodeError, IndexError, TypeError) as error:
        raise StateRagError(f"{path}: not valid TOML ({error}). Correct it or write it again.") from error

    tables: dict[str, dict[str, Any]] = {}
    for name in ("datasets", "training", "zeroshot", "fewshot"):
        tables[name] = content.get(name, {})
        if not isinstance(tables[name], dict):
            raise StateRagError(f"{path}: [{name}] must be a table, found {type(tables[name]).__name__}.")
    zeroshot = {_split_key(path, "zeroshot", key): value for key, value in tables["zeroshot"].items()}
    for (dataset, line), part in zeroshot.items():
        if part not in _PARTS:
            raise StateRagError(
                f'{path}: [zeroshot] "{dataset}.{line}" = {part!r}; expected one of {", ".join(_PARTS)}.'
            )
    fewshot = {
        _split_key(path, "fewshot", key): _check_lists(path, key, value) for key, value in tables["fewshot"].items()
    }
    named = [*tables["training"], *(d for d, _ in zeroshot), *(d for d, _ in fewshot)]
    if not named:
        raise StateRagError(
            f"{path}: [training], [zeroshot] and [fewshot] are all empty, so no data set is used. "
            "Write a split with `state-rag data split`."
        )
    datasets = {}
    for name in dict.fromkeys(named):
        location = tables["datasets"].get(name)
        if not isinstance(location, str) or not location:
            known = list(tables["datasets"])
            raise StateRagError(
                f"{path}: data set {name!r} has no path under [datasets] (there: {', '.join(known) or 'none'}"
                f'{suggest([name], known)}). Add `{name} = "/path/to/file.h5ad"`.'
            )
        datasets[name] = location
    training = frozenset(name for name, part in tables["training"].items() if part == "train")
    return Split(path=path, datasets=datasets, training=training, zeroshot=zeroshot, fewshot=fewshot)


def write_split_toml(
    path: Path, dataset: str, data: Path, lists: Mapping[str, tuple[Sequence[str], Sequence[str]]], origin: str
) -> None:
    """Write a split of one data set, in whose other lines everything is for training.

    Parameters
    ----------
    path
        The file. One that says something else is kept beside it, with `.before` at the end of its name.
    dataset
        Name of the data set.
    data
        Its file, folder or pattern, absolute.
    lists
        Cell line -> validation and test perturbations.
    origin
        What was drawn, in one line: the file's first.

    Raises
    ------
    StateRagError
        If upstream's parser would misread a name, or the file cannot be written.
    """
    tables = "\n".join(
        f"[fewshot.{_quote(f'{dataset}.{line}')}]\nval = {_array(val)}\ntest = {_array(test)}\n"
        for line, (val, test) in lists.items()
    )
    text = (
        f"# {' '.join(origin.split())}\n[datasets]\n{dataset} = {_quote(str(data))}\n\n"
        f'[training]\n{dataset} = "train"\n\n[zeroshot]\n\n{tables}'
    )
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            _check_written(temporary, path, dataset, lists)
            keep_other(path, temporary)
    except OSError as error:
        raise StateRagError(
            f"{path}: cannot be written: {reason(error)}. Choose another place with --output."
        ) from error


def _check_written(
    temporary: Path, path: Path, dataset: str, lists: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> None:
    """Refuse names that upstream's TOML parser does not give back, such as those that begin with a comma."""
    try:
        found = read_split(temporary).fewshot
    except StateRagError:
        found = {}
    if found != {(dataset, line): {"val": list(val), "test": list(test)} for line, (val, test) in lists.items()}:
        names = dict.fromkeys(name for line, (val, test) in lists.items() for name in [line, *val, *test])
        odd = [name for name in names if not re.fullmatch(r"[\w.+-]+", name)]
        raise StateRagError(
            f"{path}: upstream's TOML parser misreads some of these names: {listing(odd)}. Rename them in the data."
        )


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _array(names: Sequence[str]) -> str:
    return "[\n" + "".join(f"  {_quote(name)},\n" for name in names) + "]"


def _split_key(path: Path, table: str, key: str) -> tuple[str, str]:
    """Return data set and cell line of a key such as `replogle.hepg2`; the line may hold further dots."""
    dataset, dot, line = key.partition(".")
    if not dot or not dataset or not line:
        raise StateRagError(
            f'{path}: [{table}] key {key!r} is not of the form "dataset.cell_line" (with the quotation marks).'
        )
    return dataset, line


def _check_lists(path: Path, key: str, value: Any) -> dict[str, list[str]]:
    """Return the `val` and `test` lists of a few-shot table."""
    if not isinstance(value, dict):
        raise StateRagError(
            f'{path}: [fewshot] {key!r} must be a table with `val` and `test` lists, written [fewshot."{key}"].'
        )
    unknown = [name for name in value if name not in _PARTS]
    if unknown:
        hint = " (are quotation marks missing around the name?)" if isinstance(value[unknown[0]], dict) else ""
        raise StateRagError(f'{path}: [fewshot."{key}"] has the key {unknown[0]!r}{hint}; expected `val` and `test`.')
    lists = {}
    for part in ("val", "test"):
        names = value.get(part, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise StateRagError(f'{path}: [fewshot."{key}"] {part} must be a list of perturbation names in quotes.')
        lists[part] = names
    return lists
