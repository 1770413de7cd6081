"""Edges: pixel differences against their definition, networks against the authors' edges, lines against geometry."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.feature import canny

from shards.edges import detector, load_network
from shards.ldc import LDC
from shards.pidinet import PiDiNet, PixelDifference
from shards.thin import suppress, thin_lines
from tests.conftest import SHARED

WEIGHTS = {
    "pidinet": SHARED / "weights/pidinet/table5_pidinet.pth",
    "tiny": SHARED / "weights/pidinet/table5_pidinet-tiny.pth",
    "ldc": SHARED / "weights/ldc/LDC_BRIND_11_model.pth",
}
needs_weights = pytest.mark.skipif(
    not all(path.is_file() for path in WEIGHTS.values()), reason="no weights of PiDiNet and LDC in ../shared/data"
)

NEIGHBOURS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
CLOCKWISE = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]

Pixels = NDArray[np.float64]
At = Callable[[int, int], Pixels]


def central(w: Pixels, at: At) -> Pixels:
    return sum(w[1 + i, 1 + j] * (at(i, j) - at(0, 0)) for i, j in NEIGHBOURS)


def angular(w: Pixels, at: At) -> Pixels:
    following = [*CLOCKWISE[1:], CLOCKWISE[0]]
    return sum(w[1 + i, 1 + j] * (at(i, j) - at(*after)) for (i, j), after in zip(CLOCKWISE, following, strict=True))


def radial(w: Pixels, at: At) -> Pixels:
    numbered = enumerate(NEIGHBOURS, start=1)
    return sum(w.flat[number] * (at(2 * i, 2 * j) - at(i, j)) for number, (i, j) in numbered)


def plain(w: Pixels, at: At) -> Pixels:
    return sum(w[1 + i, 1 + j] * at(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 6])
def test_pixel_differences_are_what_the_paper_defines(layer: int) -> None:
    torch.manual_seed(layer)
    layer_of_two = PixelDifference(layer, 1, 2).double()
    image = np.random.default_rng(layer).random((9, 11))

    def at(i: int, j: int) -> Pixels:
        return image[2 + i : 7 + i, 2 + j : 9 + j]

    with torch.no_grad():
        answer = layer_of_two(torch.from_numpy(image)[None, None])[0, :, 2:7, 2:9].numpy()
    defined = (central, angular, radial, plain)[layer % 4]
    for weight, channel in zip(layer_of_two.weight.detach().numpy(), answer, strict=True):
        np.testing.assert_allclose(channel, defined(weight[0], at), atol=1e-12)


@needs_weights
def test_the_authors_weights_show_the_kind_of_each_layer() -> None:
    """A tap that a difference does not use had no gradient, and weight decay made it vanish."""
    network = load_network(WEIGHTS["pidinet"])
    layers = [module for module in network.modules() if isinstance(module, PixelDifference)]
    assert len(layers) == 16
    for number, layer in enumerate(layers):
        taps = layer.weight.detach().abs().mean((0, 1)).flatten()
        unused = (4, 4, 0)[number % 4] if number % 4 < 3 else None
        weak = [tap for tap in range(9) if taps[tap] < taps.mean() / 4]
        assert weak == ([] if unused is None else [unused]), number


def halves(path: Path) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Photo and edges of a pair of the authors'."""
    both = Image.open(path)
    photo, edges = both.crop((0, 0, 256, 256)), both.crop((256, 0, 512, 256))
    return photo, np.asarray(edges.convert("L")) < 128


def scores(draw: Callable[[Image.Image], Image.Image]) -> tuple[float, float, float]:
    """Precision, recall and F of lines within 3 pixels of HED's, over three shoes and three handbags."""
    found = total = matched = wanted = 0
    for name in ("edges2shoes", "edges2handbags"):
        for path in sorted((SHARED / name / "val").glob("*.jpg"))[:3]:
            photo, edges = halves(path)
            lines = np.asarray(draw(photo)) == 0
            found += (distance_transform_edt(~edges)[lines] <= 3).sum()
            matched += (distance_transform_edt(~lines)[edges] <= 3).sum()
            total, wanted = total + lines.sum(), wanted + edges.sum()
    precision, recall = found / total, matched / wanted
    return precision, recall, 2 * precision * recall / (precision + recall)


@needs_weights
def test_networks_draw_what_the_authors_network_drew() -> None:
    """Canny has F 0.849 here. A layer of the wrong kind costs more than the margin."""
    of_canny = scores(detector("", 2.0))
    drawn = {name: scores(detector(str(path), 0.0)) for name, path in WEIGHTS.items()}
    assert drawn["pidinet"][2] > of_canny[2] + 0.02
    assert drawn["tiny"][2] > 0.84
    assert drawn["ldc"][2] > 0.79
    assert drawn["ldc"][1] > max(0.96, of_canny[1])  # it finds more than HED keeps


@needs_weights
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_end_of_a_picture_is_no_edge(name: str) -> None:
    assert np.all(np.asarray(detector(str(WEIGHTS[name]), 0.0)(Image.new("RGB", (67, 50), (200, 60, 40)))) == 255)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module", params=["pidinet", "ldc"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights that mean nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "made.pth"
    network = PiDiNet(20) if request.param == "pidinet" else LDC()
    torch.save({f"module.{name}": weight for name, weight in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (61, 47)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_any_size_gives_lines_of_that_size(made: Path, size: tuple[int, int], mode: str) -> None:
    for weights in ("", str(made)):
        edges = detector(weights, 1.0)(noise(*size, mode))
        assert (edges.mode, edges.size) == ("L", size)
        assert set(np.unique(np.asarray(edges))) <= {0, 255}


def test_the_number_of_threads_changes_nothing_and_stays(made: Path) -> None:
    drawn = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        drawn.append(detector(str(made), 0.0)(noise(96, 80)).tobytes())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert drawn[0] == drawn[1]
    assert 0 in drawn[0]


def test_nested_weights_are_the_same_weights(made: Path, tmp_path: Path) -> None:
    state = torch.load(made, weights_only=True)
    nested = {"epoch": 19, "state_dict": {name.removeprefix("module."): weight for name, weight in state.items()}}
    torch.save(nested, tmp_path / "nested.pth")
    photo = noise(40, 32)
    assert detector(str(tmp_path / "nested.pth"), 0.0)(photo) == detector(str(made), 0.0)(photo)


def test_no_weights_means_canny() -> None:
    photo = noise(40, 32)
    lines = canny(np.asarray(photo.convert("L")) / 255, sigma=1.5)
    assert np.array_equal(np.asarray(detector("", 1.5)(photo)) == 0, lines)
    assert lines.any()


def state_of(network: torch.nn.Module, **changes: Any) -> dict[str, Any]:
    return {name: one for name, one in {**network.state_dict(), **changes}.items() if one is not None}


BROKEN = {
    "another": (lambda: {"conv.weight": torch.zeros(3)}, "another network"),
    "no weights": (lambda: [torch.zeros(3)], "no weights by name"),
    "numbers": (lambda: {"epoch": 19}, "no weights by name"),
    "lacks one": (lambda: state_of(PiDiNet(20), **{"classifier.bias": None}), "classifier.bias is missing"),
    "one more": (lambda: state_of(LDC(), strange=torch.zeros(1)), "strange is not in it"),
    "other shape": (lambda: state_of(LDC(), **{"side_1.bn.bias": torch.zeros(3)}), "side_1.bn.bias is (3,), not (32,)"),
    "other width": (lambda: {"init_block.weight": torch.zeros(64, 3, 3, 3)}, "64 channels; PiDiNet has 60, 30, 20"),
    "not finite": (lambda: state_of(LDC(), **{"side_1.bn.bias": torch.full((32,), torch.nan)}), "not finite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_detector_is_named_in_a_line(case: str, tmp_path: Path) -> None:
    make, reason = BROKEN[case]
    path = tmp_path / "odd.pth"
    torch.save(make(), path)
    with pytest.raises(ValueError, match="PiDiNet") as caught:
        detector(str(path), 0.0)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 not all")
    with pytest.raises(ValueError, match=r"cut\.pth: is damaged"):
        detector(str(tmp_path / "cut.pth"), 0.0)
    with pytest.raises(ValueError, match=r"none\.pth: no such file; give the weights of PiDiNet or LDC"):
        detector(str(tmp_path / "none.pth"), 0.0)


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 110, 155])
def test_a_broad_edge_becomes_the_line_in_its_middle(degrees: int) -> None:
    rows, columns = np.indices((64, 64)) - 32
    angle = np.radians(degrees)
    across = columns * np.sin(angle) + rows * np.cos(angle)
    edges = np.exp(-((across / 3) ** 2)).astype(np.float32)
    lines = thin_lines(suppress(edges))
    assert np.abs(across[lines]).max() <= 1
    # one pixel for each row, or each column, that the line runs through
    along = 0 if abs(np.cos(angle)) > abs(np.sin(angle)) else 1
    assert np.all(lines.sum(along)[8:-8] == 1)


def test_two_near_edges_stay_two() -> None:
    columns = np.arange(64)
    ridges = np.exp(-(((columns - 28) / 2) ** 2)) + np.exp(-(((columns - 36) / 2) ** 2))
    lines = thin_lines(suppress(np.tile(ridges.astype(np.float32), (32, 1))))
    assert np.all(np.abs(np.argwhere(lines[16])[:, 0] - [28, 36]) <= 1)


def test_faint_and_short_lines_are_dropped() -> None:
    edges = np.zeros((20, 20), np.float32)
    edges[2, 2:12] = 25 / 255
    edges[6, 2:12] = 24.9 / 255
    edges[10, 2:6] = 1
    np.fill_diagonal(edges[13:18, 2:7], 1)  # five that touch at their corners
    lines = thin_lines(edges)
    assert set(np.argwhere(lines)[:, 0]) == {2, *range(13, 18)}


def test_edges_are_known_before_torch_is() -> None:
    code = "import sys, shards.edges; assert not {'torch', 'skimage'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
