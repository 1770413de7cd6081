"""Losses against closed forms, and pix2pix's switches."""

import math

import pytest
import torch
import torch.nn.functional as F

from p2p.losses import GANS, feature_matching, gradient_penalty, perceptual, summed
from p2p.tasks import Pix2Pix, Pix2PixHD

LOGITS = torch.tensor([[-2.0, 0.0], [0.5, 3.0]])


def test_vanilla_is_cross_entropy_on_logits():
    ones, zeros = torch.ones_like(LOGITS), torch.zeros_like(LOGITS)
    gan = GANS["vanilla"]
    assert torch.allclose(gan.real(LOGITS), F.binary_cross_entropy_with_logits(LOGITS, ones))
    assert torch.allclose(gan.fake(LOGITS), F.binary_cross_entropy_with_logits(LOGITS, zeros))
    assert torch.allclose(gan.fool(LOGITS), F.binary_cross_entropy_with_logits(LOGITS, ones))
    assert gan.real(torch.zeros(3)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("name", "real", "fake", "fool"),
    [
        ("lsgan", (9 + 1 + 0.25 + 4) / 4, (4 + 0 + 0.25 + 9) / 4, (9 + 1 + 0.25 + 4) / 4),
        ("hinge", (3 + 1 + 0.5 + 0) / 4, (0 + 1 + 1.5 + 4) / 4, -1.5 / 4),
        ("wgan", -1.5 / 4, 1.5 / 4, -1.5 / 4),
    ],
)
def test_other_objectives_by_hand(name, real, fake, fool):
    got = [f(LOGITS).item() for f in GANS[name]]
    assert got == pytest.approx([real, fake, fool])


def test_gradient_penalty_of_a_linear_critic():
    """D(y) = 3 * the sum of y over 4 pixels, one logit a picture: the slope is 3 at each, its norm 6."""
    real, fake = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    penalty = gradient_penalty(lambda y: 3 * y.sum((1, 2, 3))[:, None], real, fake, torch.tensor([1, 2]))
    assert penalty.item() == pytest.approx(25)


def test_gradient_penalty_reaches_the_weights_and_points_between_real_and_fake():
    seen = []
    w = torch.tensor(2.0, requires_grad=True)

    def critic(y):
        seen.append(y.detach())
        return (w * y).square().flatten(1).sum(1, keepdim=True)

    real, fake = torch.zeros(8, 1, 2, 2), torch.ones(8, 1, 2, 2)
    gradient_penalty(critic, real, fake, torch.arange(8)).backward()
    assert w.grad is not None
    assert w.grad.abs() > 0
    at = seen[0][:, 0, 0, 0]
    assert len(set(at.tolist())) == 8  # another point for each sample
    assert ((at > 0) & (at < 1)).all()
    assert torch.equal(seen[0], at.view(-1, 1, 1, 1).expand(8, 1, 2, 2))  # on the straight line


class Recorder:
    """Stands in for an engine's call: keeps what it was given, returns logits or a picture."""

    def __init__(self, out):
        self.out, self.given, self.given_frozen = out, [], []

    def __call__(self, *args):
        self.given.append(args)
        return self.out(args[0])

    def frozen(self, *args):
        self.given_frozen.append(args)
        return self.out(args[0])


def game(**settings):
    G, D = Recorder(lambda x: x[:, :3] * 0.5), Recorder(lambda xy: [[xy, xy.mean(1, keepdim=True)]])
    batch = {"x": torch.rand(2, 3, 8, 8), "y": torch.rand(2, 3, 8, 8), "z": torch.tensor([1, 2])}
    turns = list(Pix2Pix(**settings).turns(batch, {"G": G, "D": D}))
    return [(("G" if who is G else "D"), losses) for who, losses, _ in turns], D, batch


@pytest.mark.parametrize(
    ("settings", "players", "losses", "channels"),
    [
        ({}, "DG", {"D/real", "D/fake", "G/gan", "G/l1"}, 6),
        ({"l1": 0.0}, "DG", {"D/real", "D/fake", "G/gan"}, 6),
        ({"conditional": False}, "DG", {"D/real", "D/fake", "G/gan", "G/l1"}, 3),
        ({"conditional": False, "l1": 0.0}, "DG", {"D/real", "D/fake", "G/gan"}, 3),
        ({"gan_weight": 0.0}, "G", {"G/l1"}, None),
        ({"gan": "wgan"}, "DG", {"D/real", "D/fake", "D/penalty", "G/gan", "G/l1"}, 6),
    ],
    ids=["L1+cGAN", "cGAN", "L1+GAN", "GAN", "L1", "WGAN"],
)
def test_variants_of_the_paper(settings, players, losses, channels):
    turns, D, _ = game(**settings)
    assert "".join(who for who, _ in turns) == players
    assert set().union(*(named for _, named in turns)) == losses
    if channels:
        assert {args[0].shape[1] for args in D.given + D.given_frozen} == {channels}
        assert Pix2Pix(**settings).networks(3, 3)["D"] == ("D", channels, 1)
    else:
        assert set(Pix2Pix(**settings).networks(3, 3)) == {"G"}


def test_the_unconditional_discriminator_sees_y_alone():
    _, D, batch = game(conditional=False)
    assert torch.equal(D.given[0][0], batch["y"])


def test_the_penalty_is_halved_too():
    (_, d), _ = game(gan="wgan", penalty=10.0)[0]
    (_, d5), _ = game(gan="wgan", penalty=5.0)[0]
    # D is the mean over 6 channels at each of 64 places; the critic of a picture is the mean of those.
    slope = 1 / (6 * 64) * math.sqrt(3 * 64)
    assert d["D/penalty"].item() == pytest.approx(10 * (slope - 1) ** 2 / 2)
    assert d5["D/penalty"].item() == pytest.approx(5 * (slope - 1) ** 2 / 2)


def test_gan_weight_scales_the_adversarial_term():
    torch.manual_seed(1)
    (_, one) = game(gan_weight=1.0)[0][1]
    torch.manual_seed(1)
    (_, three) = game(gan_weight=3.0)[0][1]
    assert three["G/gan"].item() == pytest.approx(3 * one["G/gan"].item())


def test_lambda_and_the_halved_objective():
    turns, _, batch = game()
    fake = batch["x"] * 0.5
    assert turns[1][1]["G/l1"].item() == pytest.approx(100 * (fake - batch["y"]).abs().mean().item())
    logits = torch.cat([batch["x"], batch["y"]], 1).mean(1, keepdim=True)
    assert turns[0][1]["D/real"].item() == pytest.approx(F.softplus(-logits).mean().item() / 2)


def maps(*values):
    """A scale of feature maps and logits, each of one value."""
    return [torch.full((1, 2, 3, 3), float(value)) for value in values]


def test_feature_matching_weighs_scales_and_layers():
    """Of two scales with 2 and 4 layers below the logits: 1/2 x (4/2 x sum of differences + 4/4 x sum)."""
    fake, real = [maps(1, 2, 9), maps(0, 0, 0, 5, 9)], [maps(0, 0, 0), maps(1, 1, 1, 1, 0)]
    assert feature_matching(fake, real).item() == pytest.approx((2 * (1 + 2) + (1 + 1 + 1 + 4)) / 2)


def test_feature_matching_leaves_the_real_maps_alone():
    real = [[m.requires_grad_() for m in maps(1, 2, 3)]]
    fake = [[m.requires_grad_() for m in maps(0, 0, 0)]]
    feature_matching(fake, real).backward()
    assert all(m.grad is None for m in real[0])
    assert fake[0][0].grad is not None
    assert fake[0][2].grad is None  # the logits are no feature


def test_the_perceptual_loss_weighs_deeper_maps_more():
    assert perceptual(maps(1, 1, 1, 1, 1), maps(0, 0, 0, 0, 0)).item() == pytest.approx(
        1 / 32 + 1 / 16 + 1 / 8 + 1 / 4 + 1
    )
    assert perceptual(maps(1, 0, 0, 0, 0), maps(0, 0, 0, 0, 0)).item() == pytest.approx(1 / 32)


def test_a_gans_scales_are_added_up():
    judged = [maps(0, 3), maps(0, 5)]
    assert summed(GANS["lsgan"].fool, judged).item() == pytest.approx((3 - 1) ** 2 + (5 - 1) ** 2)


def hd_game(**settings):
    """Turns of pix2pixHD, with what its networks were given."""
    G = Recorder(lambda x: x[:, :3] * 0.5)
    D, vgg = Recorder(lambda xy: [[xy, xy.mean(1, keepdim=True)]] * 2), lambda y: [y] * 5
    batch = {name: torch.rand(2, 3, 8, 8) for name in "xy"}
    batch |= {"z": torch.tensor([1, 2]), "instances": torch.zeros(2, 1, 8, 8, dtype=torch.int32)}
    task = Pix2PixHD(**settings)
    turns = list(task.turns(batch, {"G": G, "D": D, "VGG": vgg, "E": lambda y, instances: y + instances}))
    return [("G" if who is G else "D", losses) for who, losses, _ in turns], G, D, batch


def test_pix2pixhd_moves_g_first_with_its_terms_and_weights():
    (first, g), (second, d) = hd_game()[0]
    assert (first, second) == ("G", "D")
    assert g.keys() == {"G/gan", "G/matching", "G/perceptual"}
    assert d.keys() == {"D/real", "D/fake"}
    (_, none), _ = hd_game(perceptual=0.0, matching=0.0)[0]
    assert none.keys() == {"G/gan"}


def test_each_term_has_its_own_weight():
    for name, loss in (
        ("matching", "G/matching"),
        ("perceptual", "G/perceptual"),
        ("gan_weight", "G/gan"),
        ("l1", "G/l1"),
    ):
        torch.manual_seed(1)
        one = hd_game(**{name: 1.0})[0][0][1]
        torch.manual_seed(1)
        three = hd_game(**{name: 3.0})[0][0][1]
        assert three[loss].item() == pytest.approx(3 * one[loss].item())
        assert all(three[other].item() == pytest.approx(one[other].item()) for other in one if other != loss)


def test_features_are_told_to_g_and_not_to_d():
    _, G, D, batch = hd_game(features=3)
    assert torch.equal(G.given[0][0], torch.cat([batch["x"], batch["y"] + batch["instances"]], 1))
    assert Pix2PixHD(features=3).networks(36, 3) == {"G": ("G", 39, 3), "E": ("E", 3, 3), "D": ("D", 39, 1)}
    assert Pix2PixHD(features=3).shared() == [("G", "E")]
    assert {args[0].shape[1] for args in D.given + D.given_frozen} == {6}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"l1": -1.0}, "negative"),
        ({"matching": -1.0}, "negative"),
        ({"l1": 0.0, "gan_weight": 0.0}, "nothing is left"),
        ({"gan_weight": 0.0, "matching": 1.0}, "gan_weight 0 leaves D out"),
        ({"features": -1}, "no number of channels"),
    ],
)
def test_weights_that_make_no_task_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Pix2Pix(**wrong)
