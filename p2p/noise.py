"""The noise z of G: {x, z} -> y as a pure function of one int64 key a sample.

pix2pix has its noise in the form of dropout (Isola et al. 2017, section 2). Here every mask is computed from the
sample's key, the layer and the place in the map, never drawn from a generator with a state, so a sample gets the
same mask on any device, in any batch, on any number of ranks, and again when its forward is repeated.
"""

import torch
from torch import Tensor, nn

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FACTORS = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
_BITS = 24  # of a uniform number: what float32 holds exactly


def mix(values: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 (bits of uint64): the torch twin of `p2p.data.keyed.mix`."""
    values = (values ^ _shift(values, 30)) * _FACTORS[0]
    values = (values ^ _shift(values, 27)) * _FACTORS[1]
    return values ^ _shift(values, 31)


def _shift(values: Tensor, by: int) -> Tensor:
    return (values >> by) & ((1 << (64 - by)) - 1)  # logical: >> of int64 brings the sign along


def uniform(z: Tensor, salt: int, shape: tuple[int, ...] = ()) -> Tensor:
    """Numbers in [0, 1): float32 `[N, *shape]` of the keys `z` int64 `[N]`; another `salt`, other numbers."""
    count = torch.Size(shape).numel()
    place = torch.arange(count, device=z.device)  # no factor: the compiler's index arithmetic ends at 64 bits
    bits = mix(mix(z + mix_int(salt))[:, None] + place)
    return (_shift(bits, 64 - _BITS).float() / (1 << _BITS)).view(len(z), *shape)


def mix_int(salt: int) -> int:
    """A salt spread over 64 bits, so that keys next to each other and salts next to each other do not meet."""
    return ((salt + 1) * _GOLDEN) & ((1 << 62) - 1)


def is_noisy(net: nn.Module) -> bool:
    """Whether the answers of a network depend on the keys: one of its modules says so by `noisy`."""
    return any(getattr(module, "noisy", False) for module in net.modules())


class Dropout(nn.Module):
    """Dropout whose mask is a function of the sample's key; without keys (`z` None) it is off.

    Args:
        p: probability of a zero.
        salt: number of this layer in its network.
    """

    noisy = True

    def __init__(self, p: float, salt: int) -> None:
        super().__init__()
        self.p, self.salt = p, salt

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        if z is None:
            return x
        _, C, H, W = x.shape
        kept = uniform(z, self.salt, (H, W, C)) >= self.p  # NHWC: the memory order of channels_last
        return x * (kept.to(x.dtype) / (1 - self.p)).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"p={self.p}, salt={self.salt}"
