"""Tiling: what is blended is the picture, and windows are where a network needs them."""

import weakref
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2p.config import Inference
from p2p.generator import Generator
from p2p.spec import Spec
from p2p.tiles import check, tiled, weights, windows


@st.composite
def sides(draw):
    """side, tile, overlap, multiple"""
    multiple = draw(st.integers(1, 8))
    tile = multiple * draw(st.integers(1, 12))
    return draw(st.integers(1, 200)), tile, draw(st.integers(0, tile - multiple)), multiple


def picture(H, W, C=2):
    return torch.rand(1, C, H, W, generator=torch.Generator().manual_seed(H * 1000 + W)) * 2 - 1


@given(sides())
def test_windows_cover_the_side_at_multiples_with_the_overlap(given):
    side, tile, overlap, multiple = given
    found = windows(*given)
    assert found[0].start == 0
    assert found[-1].stop == side
    assert all(window.start % multiple == 0 for window in found)
    assert all(window.stop - window.start == tile for window in found[:-1])
    assert found[-1].stop - found[-1].start > min(side, tile) - multiple
    assert all(a.start < b.start and a.stop - b.start >= overlap for a, b in pairwise(found))
    if multiple == 1:
        assert {window.stop - window.start for window in found} == {min(side, tile)}
        assert len(found) == max(-(-(side - overlap) // (tile - overlap)), 1)  # as few as there can be


@given(sides())
def test_weights_add_up_to_one_and_are_one_where_a_window_is_alone(given):
    found = windows(*given)
    total, windows_at = torch.zeros(given[0]), torch.zeros(given[0])
    for window in found:
        windows_at[window] += 1
    for window, weight in zip(found, weights(found), strict=True):
        total[window] += weight
        assert weight.min() >= 0
        assert (weight[windows_at[window] == 1] == 1).all()
    assert torch.allclose(total, torch.ones(given[0]), atol=1e-6)


def test_the_later_window_is_faded_in_linearly():
    assert windows(14, 8, 2) == [slice(0, 8), slice(6, 14)]
    first, second = weights(windows(14, 8, 2))
    assert first.tolist() == [1] * 6 + [0.75, 0.25]
    assert second.tolist() == [0.25, 0.75] + [1] * 6


@given(sides(), sides())
def test_windows_of_a_picture_are_the_picture(down, across):
    (H, h, _, _), (W, w, _, _) = down, across
    multiple = 3
    tile = (h * multiple, w * multiple)
    x = picture(H, W)
    again = tiled(lambda r, c: x[..., r, c], (H, W), tile=tile, overlap=min(tile) - multiple, multiple=multiple)
    assert (again - x).abs().max() <= 5e-6  # float32: up to 12 x 12 windows add up in a pixel


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_result_is_float32_and_what_is_made_stays_as_it_is(dtype):
    x = picture(20, 30).to(dtype)
    before = x.clone()
    again = tiled(lambda r, c: x[..., r, c], (20, 30), tile=(8, 8), overlap=3)
    assert again.dtype == torch.float32
    assert torch.allclose(again, x.float(), atol=1e-6)
    assert torch.equal(x, before)


def test_a_picture_no_larger_than_a_tile_is_one_window():
    asked = []
    x = picture(10, 12)
    result = tiled(lambda r, c: asked.append((r, c)) or x, (10, 12), tile=(16, 12), overlap=4, multiple=4)
    assert asked == [(slice(0, 10), slice(0, 12))]
    assert torch.equal(result, x)


def local(**settings):
    """A generator without norms, in float64, in which no pixel sees further than 16 pixels."""
    torch.manual_seed(3)
    spec = Spec("global", {"width": 2, "downs": 1, "blocks": 1, "norm": "none", **settings}, (3, 3), crop=16)
    net = spec.build().double()
    for weight in net.parameters():
        weight.data.mul_(10)  # so that the first weights make something
    return Generator(net, spec, Inference())


@pytest.mark.parametrize(("H", "W"), [(96, 120), (97, 121)])
@pytest.mark.parametrize("overlap", [16, 30])
def test_a_local_network_makes_in_tiles_what_it_makes_of_the_whole(H, W, overlap):
    G, x = local(), picture(H, W, 3).double()
    whole = G(x)
    tile, size = (48, 56), G.net.size
    result = tiled(lambda r, c: G(x[..., r, c]), (H, W), tile=tile, overlap=overlap, multiple=size)
    alone = [
        torch.stack([(torch.arange(side) >= w.start) & (torch.arange(side) < w.stop) for w in found]).sum(0) == 1
        for side, found in zip((H, W), map(partial(windows, overlap=overlap, multiple=size), (H, W), tile), strict=True)
    ]
    centres = alone[0][:, None] & alone[1]
    assert 0 < centres.float().mean() < 0.9
    assert whole.std() > 0.1
    assert torch.allclose(result[..., centres], whole[..., centres], atol=1e-6)
    assert not torch.allclose(result, whole, atol=1e-3)  # nearer to the edges of its windows it saw less


def test_one_window_is_in_memory_at_a_time():
    made = []

    def make(rows, columns):
        assert not any(part() is not None for part in made)
        part = torch.zeros(1, 3, rows.stop - rows.start, columns.stop - columns.start)
        made.append(weakref.ref(part))
        return part

    tiled(make, (20, 20), tile=(8, 8), overlap=2)
    assert len(made) == 9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tile": (0, 8), "overlap": 0}, "tile: 0 pixels are no multiple of 1, as G needs; use 1$"),
        ({"tile": (32, 40), "overlap": 0, "multiple": 16}, "tile: 40 pixels are no multiple of 16, as G needs; use 32"),
        ({"tile": (5, 16), "overlap": 0, "multiple": 16}, "tile: 5 pixels .* use 16$"),
        ({"tile": (8, 9), "overlap": -1}, "overlap: -1 pixels are too few; use 0 or more"),
        ({"tile": (8, 9), "overlap": 8}, "overlap: 8 pixels leave windows of 8 no room .* by 1; use 7 or less"),
        ({"tile": (32, 64), "overlap": 17, "multiple": 16}, "overlap: 17 .* of 32 no room .* by 16; use 16 or less"),
    ],
)
def test_settings_that_do_not_go_are_said(settings, said):
    with pytest.raises(ValueError, match=said):
        check(**settings)
    with pytest.raises(ValueError, match=said):
        tiled(lambda r, c: torch.zeros(1, 3, 8, 8), (64, 64), **settings)


def test_pictures_and_answers_that_do_not_go_are_said():
    with pytest.raises(ValueError, match="size: 0x4 pixels are no picture"):
        tiled(lambda r, c: torch.zeros(1, 3, 0, 4), (0, 4), tile=(4, 4), overlap=0)
    for wrong in (torch.zeros(1, 3, 4, 5), torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4)):
        with pytest.raises(ValueError, match=r"make: gave \(.*\) for 1 window of 4x4 pixels"):
            tiled(lambda r, c, wrong=wrong: wrong, (8, 8), tile=(4, 4), overlap=0)
