"""Which rows lie close together in embedding space and which lie far from all: exact, in tiles of bounded memory.

The distance to the nearest neighbours tells outliers (Ramaswamy et al. 2000); every pair is compared, which takes
time with the square of the rows and memory only with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_TILE = 1024, 8192  # rows and columns of similarities at a time: 32 MiB


@dataclass(frozen=True)
class Neighbours:
    """For n rows in p parts. `distance`, shape (n,): mean cosine distance to the nearest other rows.

    `nearest` and `similarity`, shape (n, p): in each part the most similar other row (-1 where there is none), and how
    similar it is.
    """

    distance: NDArray[np.float32]
    nearest: NDArray[np.int64]
    similarity: NDArray[np.float32]


@torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is untyped here
def neighbours(
    vectors: NDArray[np.float32], parts: NDArray[np.int64], count: int, tile: tuple[int, int] = _TILE
) -> Neighbours:
    """`vectors` has shape (n, hidden); `parts`, shape (n,), numbers the part of each row from 0; n is at least 2."""
    rows = len(vectors)
    count = min(count, rows - 1)
    members = [np.flatnonzero(parts == part) for part in range(int(parts.max()) + 1)]
    found = Neighbours(
        np.empty(rows, np.float32),
        np.full((rows, len(members)), -1, np.int64),
        np.full((rows, len(members)), -np.inf, np.float32),
    )
    for mine in _tiles(np.arange(rows), tile[0]):
        block, top = _unit(vectors[mine]), torch.full((len(mine), count), -torch.inf)
        for part, others in enumerate(members):
            for theirs in _tiles(others, tile[1]):
                alike = block @ _unit(vectors[theirs]).T
                alike[_own(mine, theirs)] = -torch.inf  # a row is not its own neighbour
                _keep_best(found, mine, theirs, part, alike)
                best = alike.topk(min(count, len(theirs))).values
                top = torch.cat([top, best], dim=1).topk(count).values
        found.distance[mine] = 1 - top.mean(1).numpy()
    return found


def outliers(distance: NDArray[np.float32], deviations: float) -> NDArray[np.bool_]:
    """Rows further out than the median by so many robust standard deviations (1.4826 x MAD; Leys et al. 2013)."""
    middle = np.median(distance)
    spread = 1.4826 * np.median(np.abs(distance - middle))
    return distance > middle + deviations * max(float(spread), float(np.finfo(np.float32).eps))


def _keep_best(
    found: Neighbours, mine: NDArray[np.int64], theirs: NDArray[np.int64], part: int, alike: torch.Tensor
) -> None:
    value, at = (found_.numpy() for found_ in alike.max(1))
    better = value > found.similarity[mine, part]
    found.similarity[mine[better], part] = value[better]
    found.nearest[mine[better], part] = theirs[at[better]]


def _own(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where in a tile a row meets itself; both are sorted."""
    at = np.searchsorted(theirs, mine).clip(max=len(theirs) - 1)
    rows = np.flatnonzero(theirs[at] == mine)
    return rows, at[rows]


def _tiles(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))


def _unit(vectors: NDArray[np.float32]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(vectors)), dim=1)
