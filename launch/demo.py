"""The whole road in a few minutes: pack, train on two workers, translate, show. `make demo` runs it."""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from launch.argv import Parser
from p2p.data.encoded import EXTENSIONS, decode
from p2p.data.format import read_index
from p2p.log import clock

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
TRAIN, VAL = "motorcycle_left", "motorcycle_right"
"""Photographs that come with scikit-image: a scene as the two eyes of a stereo camera saw it. What is learnt from one
can so be tried on another that shows the same things, moved by up to 70 pixels."""
SIDE = 128
"""Of the pictures that are trained on, pixels."""
IMAGES = 5000
"""Images that are trained on."""
WORKERS = 2
MADE, MARKER = ("photos", "shards", "run", "gallery"), ".p2p-demo"
"""What a demo makes, and the sign that it did."""
VOTES = 9
"""Pictures that are asked which half is the input."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = Parser(prog="demo", description="Pack, train, translate and show, on this machine.")
    p.add_argument("--data", type=Path, help="folder of side-by-side pairs; default: photographs of scikit-image")
    p.add_argument("--input", choices=["left", "right"], help="which half is the input; default: the plainer one")
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything that is made")
    p.add_argument("--images", type=int, default=IMAGES, help="images to train on")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 a mistake in what was given, else that of the step that failed."""
    args = parser().parse_args(argv)
    try:
        pack = pack_command(args.data, args.input, args.out)
        clear(args.out, args.data)
        if args.data is None:
            cut_photographs(args.out / "photos")
    except (ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    packed = run(pack)
    shards = args.out / "shards"
    val = shards / ("val" if (shards / "val").is_dir() else "test" if (shards / "test").is_dir() else "train")
    if not (shards / "train" / "index.json").is_file():
        return packed or 2
    began = time.monotonic()
    code = run(train_command(args.out, shards / "train", val, args.images, cut=args.data is None)) or run(
        ["launch.translate", f"{args.out}/run", f"{val}", "--out", f"{args.out}/gallery"]
    )
    return code or report(args.out, shards, time.monotonic() - began) or packed


def clear(out: Path, data: Path | None) -> None:
    """Make `out` ready: new, or emptied of what an earlier demo made.

    Raises:
        ValueError: it holds something else, or it and `data` lie in each other.
    """
    if data and (out.resolve().is_relative_to(data.resolve()) or data.resolve().is_relative_to(out.resolve())):
        raise ValueError(f"{out}: lies in the data, or the data in it; name another folder with OUT=folder")
    held = {p.name for p in out.iterdir()} if out.is_dir() else set()
    if held and (MARKER not in held or held - {MARKER, *MADE}):
        raise ValueError(f"{out}: is not empty and no earlier demo; name another folder with OUT=folder")
    for name in MADE:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def pack_command(data: Path | None, side: str | None, out: Path) -> list[str]:
    """Arguments that pack the pairs of `data`, or crops of photographs with their edges.

    Raises:
        ValueError: there are no pictures in `data`.
    """
    if data is None:
        return ["shards.pack", "photos", f"{out}/photos", f"{out}/shards"]
    pictures = [p for p in sorted(data.rglob("*")) if p.suffix.lower() in EXTENSIONS]
    if not pictures:
        raise ValueError(f"{data}: no pictures here; give a folder of side-by-side pairs")
    split = (data / "train").is_dir()
    hold_out = [] if split else ["--val", str(max(1, min(200, len(pictures) // 10)))]
    return ["shards.pack", "pairs", str(data), f"{out}/shards", "--input", side or plainer_side(pictures), *hold_out]


def cut_photographs(folder: Path) -> None:
    """Crops of one photograph, out of which training cuts at random places; of the other, validation crops."""
    import skimage.data

    for part, name, side, stride in (("train", TRAIN, 192, 32), ("val", VAL, SIDE, SIDE // 2)):
        photo = Image.open(Path(skimage.data.__file__).parent / f"{name}.png").convert("RGB")
        (folder / part).mkdir(parents=True)
        for top in range(0, photo.height - side + 1, stride):
            for left in range(0, photo.width - side + 1, stride):
                crop = photo.crop((left, top, left + side, top + side))
                crop.save(folder / part / f"{name}_{top:03d}_{left:03d}.png")


def plainer_side(pictures: Sequence[Path]) -> str:
    """The half with less in it, edges or labels beside a photograph, as a compressor finds it in a few of them."""
    votes = []
    for picture in pictures[:: max(1, len(pictures) // VOTES)]:
        try:
            both = np.asarray(decode(picture.read_bytes()).convert("RGB").resize((SIDE * 2, SIDE)))
        except (ValueError, OSError):
            continue  # the packer will name it
        left, right = (len(zlib.compress(half.tobytes())) for half in np.split(both, 2, axis=1))
        votes.append("left" if left < right else "right")
    return max(votes, key=votes.count, default="left")


def train_command(out: Path, train: Path, val: Path, images: int, *, cut: bool) -> list[str]:
    """Arguments that train on two workers of this machine; `cut` crops out of the pictures, else they are resized."""
    epochs = images / read_index(train).samples
    settings = [f"data.train={train}", f"data.val={val}", f"schedule.epochs={epochs:.6f}"]
    settings += ["data.load=0", "data.mirror=true"] if cut else []
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}", "-m", "--"]
    sets = [part for setting in settings for part in ("--set", setting)]
    return [*torchrun, "launch.train", "--config", str(CONFIG), "--run", f"{out}/run", *sets]


def run(arguments: Sequence[str]) -> int:
    """Show a command of the project, run it, return its exit code."""
    shown = "torchrun" if arguments[0] == "torch.distributed.run" else f"python -m {arguments[0]}"
    print(f"\n$ {shown} {shlex.join(arguments[1:])}", flush=True)
    return subprocess.run([sys.executable, "-m", *arguments]).returncode


def report(out: Path, shards: Path, seconds: float) -> int:
    """The last line: what was trained, how good it is, where to look."""
    lines = [json.loads(line) for line in (out / "run" / "scalars.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "val/L1" in line]
    constant = measured[0]["val/L1 of the best constant"]
    print(
        f"\ntrained pix2pix on {read_index(shards / 'train').samples} pairs, {lines[-1]['images']:,}"
        f" images, {WORKERS} workers, {clock(seconds)}: validation L1 {measured[0]['val/L1']:.3f} ->"
        f" {measured[-1]['val/L1']:.3f} (the best constant picture: {constant:.3f}); see {out}/gallery/index.html"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
