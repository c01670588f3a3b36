from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import batches
from jobs.training.columns import Ragged

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(lengths, st.integers(1, 24), st.integers(0, 3))
def test_each_row_comes_once_an_epoch_in_batches_of_like_size(sizes, batch, seed) -> None:
    plan = batches.epoch(sizes, batch, seed)
    assert sorted(np.concatenate(plan)) == list(range(len(sizes)))
    assert len(plan) == -(-len(sizes) // batch)
    assert {len(sizes) // len(plan), -(-len(sizes) // len(plan))} >= set(map(len, plan))
    again = batches.epoch(sizes, batch, seed)
    assert all((a == b).all() for a, b in zip(plan, again, strict=True))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_ranks_share_a_batch_and_take_as_many_steps(world, micro, steps) -> None:
    batch = np.arange(world * micro * steps)
    parts = [list(batches.micro_batches(batch, rank, world, steps)) for rank in range(world)]
    assert {len(part) for part in parts} == {steps}
    assert sorted(np.concatenate([rows for part in parts for rows, _ in part])) == list(batch)
    assert {(len(rows), share) for part in parts for rows, share in part} == {(micro, 1.0)}


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=50), st.integers(1, 7), st.integers(1, 6))
def test_the_ranks_means_come_to_the_mean_over_the_batch(losses, world, micro) -> None:
    batch, each = np.arange(len(losses)), np.asarray(losses)
    accumulation = math.ceil(math.ceil(len(batch) / world) / micro)
    parts = [part for rank in range(world) for part in batches.micro_batches(batch, rank, world, accumulation)]
    assert len(parts) == world * accumulation
    assert max(len(rows) for rows, _ in parts) <= micro
    assert np.isclose(np.mean([share * each[rows].mean() for rows, share in parts]), each.mean())


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 8))
def test_every_row_is_evaluated_once_and_all_ranks_forward_as_often(rows, world, micro) -> None:
    shards = [list(batches.shard(rows, rank, world, micro)) for rank in range(world)]
    assert len({len(shard) for shard in shards}) == 1
    counted = [row for shard in shards for part, counting in shard for row in part[:counting]]
    assert sorted(counted) == list(range(rows))


def test_like_lengths_go_together() -> None:
    sizes = list(np.random.default_rng(0).integers(5, 60, size=640))
    padding = sum(len(b) * max(sizes[i] for i in b) - sum(sizes[i] for i in b) for b in batches.epoch(sizes, 32, 0))
    shuffled = np.random.default_rng(1).permutation(640).reshape(-1, 32)
    plain = sum(len(b) * max(sizes[i] for i in b) - sum(sizes[i] for i in b) for b in shuffled)
    assert padding < plain / 3


def test_a_batch_is_padded_to_its_longest_and_masked() -> None:
    made = batches.Encoded(Ragged.of([[1, 2, 3], [4]]), np.array([1, 0]), pad=9).batch([1, 0])
    assert made["input_ids"].tolist() == [[4, 9, 9], [1, 2, 3]]
    assert made["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert made["labels"].tolist() == [0, 1]


def test_an_epoch_of_another_seed_is_another_order() -> None:
    one, two = (np.concatenate(batches.epoch([5] * 50, 10, seed)) for seed in (0, 1))
    assert one.tolist() != two.tolist()
    with pytest.raises(ZeroDivisionError):
        batches.epoch([5], 0, 0)
