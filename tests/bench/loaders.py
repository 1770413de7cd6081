"""Ways from files to batches of training, each a function that goes through a set some times: bare decoding, ours, the
PyTorch port's, WebDataset's. All decode JPEG pairs, cut them in two, crop 256x256, mirror half of them, and batch."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
import torchvision.transforms as T
import webdataset as wds
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as TF

from p2p.data.augment import Augment
from p2p.data.order import Order
from p2p.data.reader import Holes, Stream
from p2p.data.rows import read_rows
from p2p.data.shardset import ShardSet
from p2p.data.tars import split_members

CROP = 256
BICUBIC = T.InterpolationMode.BICUBIC
Run = Callable[[], None]


def encoded(shards: ShardSet) -> list[Tensor]:
    """The JPEG bytes of every pair, in memory."""
    found = []
    for info in shards.index.shards:
        data = (Path(shards.folder) / info.name).read_bytes()
        for offset, size, _ in read_rows(shards.folder, info).tolist():
            members = split_members(data[offset : offset + size])
            (picture,) = (value for name, value in members.items() if name.startswith("ab."))
            found.append(torch.frombuffer(bytearray(picture), dtype=torch.uint8))
    return found


def bare(pictures: list[Tensor], threads: int) -> Run:
    """Nothing but the decoder, on bytes that lie in memory: the limit of the cores."""

    def some(part: list[Tensor]) -> None:
        for picture in part:
            decode_image(picture)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, [pictures[i::threads] for i in range(threads)]))

    return run


def ours(shards: ShardSet, threads: int, batch: int, load: int, passes: int) -> Run:
    """`Stream`: order, read, checksum, decode, cut, in threads; uint8 batches."""
    augment = Augment(load, CROP, mirror=True)
    stream = Stream(shards, Order(shards.counts), augment, Holes(0, print), batch, threads=threads)
    return partial(drain, lambda: stream.batches(0, sum(shards.counts) * passes))


def port(folder: Path, processes: int, batch: int, load: int, passes: int) -> Run:
    """The PyTorch port: PIL and torchvision's transforms on files of a folder; float batches in [-1, 1]."""
    return persistent(PairFolder(folder, load, passes), processes, batch, shuffle=True)


def webdataset(shards: ShardSet, processes: int, batch: int, load: int, passes: int) -> Run:
    """`webdataset.WebDataset` of the same shards with its two shuffles, decoded by torchvision as ours (its own
    "torchrgb8" goes through PIL and is slower); uint8 batches, made in the workers."""
    tars = [str(Path(shards.folder) / info.name) for info in shards.index.shards]
    assert len(tars) % processes == 0, f"{len(tars)} shards do not divide by {processes} processes"
    stages = wds.WebDataset(tars * passes, shardshuffle=100).shuffle(1000)
    return persistent(stages.map(partial(cut_pair, load=load)).batched(batch), processes)


def persistent(data: Dataset, processes: int, batch: int | None = None, *, shuffle: bool = False) -> Run:
    """A DataLoader whose processes stay alive from one run to the next."""
    loader = DataLoader(data, batch, shuffle=shuffle, num_workers=processes, persistent_workers=True)
    return partial(drain, lambda: loader)


def drain(batches: Callable[[], Iterator]) -> None:
    """Ask for every batch and drop it."""
    for _ in batches():
        pass


class PairFolder(Dataset):
    """`AlignedDataset` of the PyTorch port in its steps: open, RGB, cut in two, of each half resize by PIL (bicubic;
    no work where it has that size), crop, mirror, ToTensor, Normalize."""

    def __init__(self, folder: Path, load: int, passes: int) -> None:
        self.paths = sorted(folder.rglob("*.jpg")) * passes
        self.resize = T.Resize([load, load], BICUBIC)
        self.spare = load - CROP
        self.normalize = T.Compose([T.ToTensor(), T.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> dict[str, Tensor | str]:
        pair = Image.open(self.paths[i]).convert("RGB")
        w, h = pair.width // 2, pair.height
        left, top, flip = random.randint(0, self.spare), random.randint(0, self.spare), random.random() < 0.5
        sides = {"A": pair.crop((0, 0, w, h)), "B": pair.crop((w, 0, 2 * w, h))}
        cut = {name: self.resize(side).crop((left, top, left + CROP, top + CROP)) for name, side in sides.items()}
        if flip:
            cut = {name: side.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for name, side in cut.items()}
        return {name: self.normalize(side) for name, side in cut.items()} | {"A_paths": str(self.paths[i])}


def cut_pair(sample: dict[str, bytes], load: int) -> tuple[str, Tensor, Tensor]:
    """Key, x, y of a sample of WebDataset: decoded, cut in two, resized, cropped, mirrored."""
    (picture,) = (value for name, value in sample.items() if name.startswith("ab."))
    pair = decode_image(torch.frombuffer(bytearray(picture), dtype=torch.uint8), ImageReadMode.RGB)
    both = torch.stack(pair.chunk(2, dim=-1))
    if both.shape[-1] != load:
        both = TF.resize(both, [load, load], BICUBIC)
    top, left = (random.randint(0, load - CROP) for _ in "hw")
    both = both[..., top : top + CROP, left : left + CROP]
    x, y = both.flip(-1) if random.random() < 0.5 else both
    return sample["__key__"], x, y
