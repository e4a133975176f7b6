"""Tiles of a grid: every pair of near cells once, and no other."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.closeness import close
from vistrim.core.attention import attend, attend_by_tiles
from vistrim.core.windows import TILE, lay_tiles, rows_of_cells, tile_grid

sides = st.integers(1, 14)
windows = st.integers(0, 8).map(lambda reach: 2 * reach + 1)


@settings(deadline=None)
@given(sides, sides, windows)
def test_each_cell_finds_its_neighbors(rows, columns, window):
    tiling, cells = tile_grid(rows, columns, window), rows * columns
    reach = window // 2
    found = torch.zeros(cells, cells, dtype=torch.long)
    for queries, keys, near in zip(tiling.queries, tiling.keys, tiling.near, strict=True):
        assert len(set(keys.tolist())) == len(keys) <= (TILE + 2 * reach) ** 2
        for query, is_near in zip(queries.tolist(), near, strict=True):
            assert query >= 0 or not is_near.any()
            if query >= 0:
                found[query, keys[is_near]] += 1
    down, along = torch.arange(cells) // columns, torch.arange(cells) % columns
    apart = torch.maximum((down[:, None] - down).abs(), (along[:, None] - along).abs())
    assert torch.equal(found, (apart <= reach).long())
    assert tiling.pairs == (tiling.queries.numel(), tiling.keys.shape[1])


@settings(deadline=None)
@given(sides, windows, st.integers(1, 3), st.data())
def test_removed_tokens_are_neither_queries_nor_keys(side, window, images, data):
    cells = images * side * side
    removed = data.draw(st.sets(st.integers(0, cells - 1), max_size=cells - 1))
    left = [cell for cell in range(cells) if cell not in removed]
    # Rows in front of the image and behind it show none.
    cell = torch.tensor([[7, *left, 7]])
    present = torch.tensor([[False, *[True] * len(left), False]])
    row_of_cell = rows_of_cells(cell, present, cells)
    assert row_of_cell[0].tolist() == [left.index(c) + 1 if c in left else -1 for c in range(cells)]
    queries, keys, near = lay_tiles(row_of_cell.unflatten(1, (images, -1)), tile_grid(side, side, window))
    assert sorted(queries[queries >= 0].tolist()) == list(range(1, len(left) + 1))
    assert not near[(queries < 0)[..., None].expand_as(near)].any()
    assert not near[(keys < 0)[..., None, :].expand_as(near)].any()
    same = near & (queries[..., None] == keys[..., None, :])
    assert torch.equal(same.any(-1), queries >= 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.data())
def test_tiles_attend_as_all_rows_with_a_mask(batch, kv_heads, per_key, tiles, data):
    length, n, m = 9, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    query = torch.randn(batch, kv_heads * per_key, length, 4, generator=generator)
    key, value = torch.randn(2, batch, kv_heads, length, 4, generator=generator)
    rows = torch.randint(length, (batch, tiles, n), generator=generator)
    columns = torch.rand(batch, tiles, length, generator=generator).argsort(2)[..., :m]
    seen = torch.rand(batch, tiles, n, m, generator=generator) > 0.5
    seen[..., 0] = True
    found = torch.cat([part for _, part in attend_by_tiles(query, key, value, rows, columns, seen, 0.5)], 2)
    for b in range(batch):
        for t in range(tiles):
            mask = torch.zeros(n, length, dtype=torch.bool)
            mask[:, columns[b, t]] = seen[b, t]
            some = query[b : b + 1, :, rows[b, t]]
            expected = attend(some, key[b : b + 1], value[b : b + 1], mask[None, None], 0.5)
            assert close(found[b : b + 1, :, t * n : (t + 1) * n], expected)


def test_few_tiles_at_a_time_give_the_same(monkeypatch):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 20, 8)
    rows, columns = torch.randint(20, (2, 5, 3)), torch.randint(20, (2, 5, 6))
    arguments = query, key, value, rows, columns, torch.ones(2, 5, 3, 6, dtype=torch.bool), 0.3
    whole = list(attend_by_tiles(*arguments))
    monkeypatch.setattr("vistrim.core.attention.ELEMENTS_AT_ONCE", 2 * 2 * 2 * 4 * 6 * 8)
    parts = list(attend_by_tiles(*arguments))
    assert [some for some, _ in parts] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert close(torch.cat([part for _, part in parts], 2), whole[0][1])


def test_heads_of_one_key_head_are_packed_for_a_single_row():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 1, 8), *torch.randn(2, 2, 2, 5, 8)
    weights = (query.view(2, 2, 3, 8) @ key.transpose(2, 3) * 0.5).softmax(-1)
    assert close(attend(query, key, value, None, 0.5), (weights @ value).view(2, 6, 1, 8))
