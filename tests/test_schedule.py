"""The learning rate over a run: the paper's, the port's, and the plain line between them."""

import pytest

from p2p import schedule


def rates(name, full, decay, at, images=10):
    f = schedule.factor(name, full, decay, images)
    return [f(x) for x in at]


def test_the_papers_is_constant():
    assert rates("constant", 3, 0, [0, 15, 29]) == [1, 1, 1]


def test_linear_falls_from_image_to_image():
    assert rates("linear", 1, 2, [0, 9, 10, 20, 29, 30]) == pytest.approx([1, 1, 1, 0.5, 0.05, 0])


def test_the_ports_is_held_for_each_epoch():
    """1 - max(0, e - 100) / 101 for e = 1 .. 200: full for 100 epochs, 1/101 in the last."""
    at = [0, 999, 1000, 1009, 1500, 1990, 1999]
    e = [1, 100, 101, 101, 151, 200, 200]
    assert rates("port", 100, 100, at) == pytest.approx([1 - max(0, k - 100) / 101 for k in e])
    assert rates("port", 100, 100, [1999]) == pytest.approx([1 / 101])


def test_pix2pixhds_is_full_for_an_epoch_more():
    """Full in epochs 1 to 101, then 1/100 less in each; 1/100 in the last, the 200th."""
    at = [0, 1000, 1009, 1010, 1500, 1990, 1999]
    e = [1, 101, 101, 102, 151, 200, 200]
    assert rates("hd", 100, 100, at) == pytest.approx([1 - max(0, k - 101) / 100 for k in e])
    assert rates("hd", 100, 100, [1999]) == pytest.approx([1 / 100])
    assert rates("hd", 2, 0, [0, 19]) == [1, 1]


@pytest.mark.parametrize(
    ("name", "full", "decay", "says"), [("constant", 1, 1, "schedule.decay"), ("linear", 0, 0, "no length")]
)
def test_contradictions_are_refused(name, full, decay, says):
    with pytest.raises(ValueError, match=says):
        schedule.factor(name, full, decay, 10)
