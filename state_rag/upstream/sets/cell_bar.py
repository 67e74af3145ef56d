"""STATE's progress bar of a prediction, counting cells in place of batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from state_rag.upstream.sets.grouped_loader import GroupedLoader
from state_rag.upstream.swap import replaced


@contextmanager
def counting_cells() -> Iterator[None]:
    """Have a bar over a `GroupedLoader` show the cells that are done and how many a second."""
    import tqdm

    class CellBar(tqdm.tqdm):  # type: ignore[type-arg]
        def __init__(self, iterable: Any = None, *args: Any, **kwargs: Any) -> None:
            if isinstance(iterable, GroupedLoader):
                kwargs = {**kwargs, "total": iterable.n_cells, "unit": " cells"}
            super().__init__(iterable, *args, **kwargs)

        def __iter__(self) -> Iterator[Any]:
            if not isinstance(self.iterable, GroupedLoader):
                yield from super().__iter__()
                return
            with self:
                for item in self.iterable:
                    yield item
                    self.update(sum(item["sets"].sizes))

    with replaced(tqdm, "tqdm", CellBar):
        yield
