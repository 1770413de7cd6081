"""Instance pooling against loops over instances: `python -m tests.bench.pool`.

On a map of 1024x2048 pixels with 100 instances and 3 channels. The loops do what pix2pixHD's code does: the ids by
NumPy on the CPU, then for every instance, picture and channel a search for its pixels, their mean, and its assignment
in place. Instances are compact (cells around random points, as objects are) or scattered (a random id for each pixel).
"""

import argparse

import numpy as np
import torch
from torch import Tensor

from p2p.networks.encoder import pooled
from tests.bench import alternate, machine, median


def loops(maps: Tensor, instances: Tensor) -> Tensor:
    """What `pooled` does, slowly."""
    result = maps.clone()
    for instance in np.unique(instances.cpu().numpy()):
        for n in range(len(maps)):
            at = (instances[n, 0] == int(instance)).nonzero(as_tuple=True)
            for channel in range(maps.shape[1]):
                values = maps[n, channel][at]
                result[n, channel][at] = values.mean().expand_as(values)
    return result


def compact(height: int, width: int, count: int, generator: torch.Generator) -> Tensor:
    """The nearest of `count` random points, for each pixel: int32 `[1,1,H,W]`."""
    points = torch.rand(count, 2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    nearest, found = torch.full((height, width), torch.inf), torch.zeros(height, width, dtype=torch.int32)
    for number, (row, column) in enumerate(points.tolist()):
        distance = (rows - row).square() + (columns - column).square()
        found[distance < nearest] = number
        nearest = torch.minimum(nearest, distance)
    return found[None, None]


def exact(maps: Tensor, instances: Tensor) -> Tensor:
    """The means in float64, instance by instance, rounded once."""
    result = torch.zeros_like(maps)
    for instance in instances.unique():
        at = instances[0, 0] == instance
        result[0][:, at] = maps[0][:, at].double().mean(1, keepdim=True).to(maps.dtype)
    return result


def forward(pool, maps: Tensor, instances: Tensor):
    def run():
        with torch.no_grad():
            pool(maps, instances)
        if maps.is_cuda:
            torch.cuda.synchronize()

    return run


def training(pool, maps: Tensor, instances: Tensor):
    leaf, slope = maps.clone().requires_grad_(), torch.randn_like(maps)

    def run():
        leaf.grad = None
        pool(leaf, instances).backward(slope)
        if leaf.is_cuda:
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="1024x2048", help="HxW (%(default)s)")
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--channels", type=int, default=3)
    args = parser.parse_args()
    H, W = map(int, args.size.split("x"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    kinds = {
        "compact": compact(H, W, args.instances, generator),
        "scattered": torch.randint(0, args.instances, (1, 1, H, W), generator=generator, dtype=torch.int32),
    }
    maps = (torch.rand(1, args.channels, H, W, generator=generator) * 2 - 1).to(device)
    print(f"pooling of {args.channels}x{H}x{W} over {args.instances} instances on {machine()}")
    for kind, instances in kinds.items():
        compare(kind, maps, instances.to(device), args.rounds)


def compare(kind: str, maps: Tensor, instances: Tensor, rounds: int) -> None:
    """Print a line each for forward alone and training."""
    off = (pooled(maps, instances) - exact(maps.cpu(), instances.cpu()).to(maps.device)).abs().max()
    for form, timed in (("forward", forward), ("forward and backward", training)):
        seconds = alternate({"loops": timed(loops, maps, instances), "p2p": timed(pooled, maps, instances)}, rounds)
        ratios = [a / b for a, b in zip(seconds["loops"], seconds["p2p"], strict=True)]
        print(
            f"{kind:10} {form:21} loops {median(seconds['loops']) * 1000:7.0f} ms   "
            f"p2p {median(seconds['p2p']) * 1000:6.1f} ms   {median(ratios):6.1f} times as fast"
            f"   off a float64 mean by {off:.1e}"
        )


if __name__ == "__main__":
    main()
