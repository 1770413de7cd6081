"""Weights of the authors' pix2pixHD become a checkpoint of ours:
`python -m launch.convert checkpoints/label2city --out runs/city --classes 35`."""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from launch.argv import Parser, count
from p2p import __version__, checkpoint, original
from p2p.config import Inference
from p2p.data.views import View
from p2p.engine import load_strict
from p2p.generator import FILE, Generator
from p2p.original import Found
from p2p.spec import Spec

READERS = {"G": original.generator, "D": original.discriminator, "E": original.encoder}
STATISTICS = ("running_mean", "running_var")
"""Tensors of a norm that are no parameters."""
HEIGHT, WIDTH = 512, 1024
"""What the authors train the global net at; twice that with each enhancer."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = Parser(
        prog="p2p-convert",
        description="Make a checkpoint of what NVIDIA/pix2pixHD has trained, to translate with and to train on.",
        epilog="Exit codes: 0 converted, 2 a mistake or a file that does not fit, 130 interrupted.",
    )
    p.add_argument("folder", type=Path, metavar="FOLDER", help="holds WHICH_net_G.pth and, where there are, _D and _E")
    p.add_argument("--out", type=Path, required=True, help="new folder, a run with one checkpoint")
    p.add_argument("--classes", type=count, required=True, metavar="N", help="of the label maps; 0: x was a picture")
    p.add_argument("--no-boundaries", dest="boundaries", action="store_false", help="G saw none (--no_instance)")
    p.add_argument("--which", default="latest", metavar="WHICH", help="of several epochs (%(default)s)")
    p.add_argument(
        "--crop",
        type=_size,
        metavar="HxW",
        help=f"pixels that it was trained at ({HEIGHT}x{WIDTH}, and twice that with each enhancer)",
    )
    p.add_argument("--no-resize", dest="resized", action="store_false", help="trained on cuts (--resize_or_crop crop)")
    return p


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH; give for instance {HEIGHT}x{WIDTH}")
    return int(match[1]), int(match[2])


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 converted, 2 a mistake or a file that does not fit (one line), 130 interrupted."""
    args = parser().parse_args(argv)
    try:
        work(args)
    except (ValueError, OSError) as error:
        print(f"p2p-convert: {error}".replace("\n", "; "), file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def work(args: argparse.Namespace) -> None:
    """Everything that can be wrong is looked at before anything is written."""
    if args.out.exists():
        raise ValueError(f"{args.out}: exists already; give a new folder with --out")
    found = {name: read(args, name) for name in READERS if name == "G" or file(args, name).is_file()}
    spec = specified(args, found)
    write(args.out, spec, found)
    for name, (net, state) in found.items():
        count = sum(tensor.numel() for key, tensor in state.items() if not key.endswith(STATISTICS))
        print(f"{name}: {json.dumps({'name': net.name, **net.settings})}  # {count:,} parameters")
    told = f", task.features={spec.encoder.channels[1]}" if spec.encoder else ""
    print(
        f"converted to {args.out}; to train on, give a config the networks above{told},"
        f" data.boundaries={str(args.boundaries).lower()} and init_from={args.out}"
    )


def file(args: argparse.Namespace, name: str) -> Path:
    """Where the original keeps network `name`."""
    path: Path = args.folder / f"{args.which}_net_{name}.pth"
    return path


def read(args: argparse.Namespace, name: str) -> Found:
    """A network as float32 on the CPU.

    Raises:
        ValueError: the file is missing, damaged, or holds another network; names it.
    """
    path = file(args, name)
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; give a folder of the original's checkpoints/, and --which of its epochs"
        )
    try:
        net, state = READERS[name](weights(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return net, checkpoint.copied({key: tensor.float() for key, tensor in state.items()})


def weights(path: Path) -> dict[str, Tensor]:
    """What a file of torch.save holds, as long as it is finite numbers by name.

    Raises:
        ValueError: it is not.
    """
    with open(path, "rb") as opened:
        try:
            state = torch.load(opened, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged or hostile file may make it raise anything
            raise ValueError("is damaged, or holds more than weights, which might be a program; get it anew") from error
    for name, tensor in original.bare(state).items():
        if not plain(tensor):
            raise ValueError(f"{name} is not made of finite numbers; give the file of an earlier epoch with --which")
    return state


def plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, has as many numbers as it claims, and all of them finite."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return False
    backed = tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    return backed and bool(tensor.isfinite().all())


def specified(args: argparse.Namespace, found: Mapping[str, Found]) -> Spec:
    """What rebuilds G, and how it was trained, as far as the options tell.

    Raises:
        ValueError: the networks do not see what they must; names the file, and the options.
    """
    G, E = found["G"][0], found["E"][0] if "E" in found else None
    view, times = View(args.classes, args.boundaries), 2 ** G.settings.get("enhancers", 0)
    spec = Spec(
        G.name, G.settings, G.channels, args.crop or (HEIGHT * times, WIDTH * times), args.resized, view=view, encoder=E
    )
    seen, y = G.channels[0] - (E.channels[1] if E else 0), G.channels[1]
    if not any(view.channels(x, y)[0] == seen for x in (1, 3)):
        parts = [f"{args.classes} classes" if args.classes else "a picture's 1 or 3"]
        parts += ["1 of boundaries"] * args.boundaries + ([f"{E.channels[1]} features"] if E else [])
        raise ValueError(
            f"{file(args, 'G')}: sees {G.channels[0]} channels, which are not {' + '.join(parts)}; give its --classes,"
            " --no-boundaries where it was trained so, and beside it the E of its features where it has any"
        )
    for name, channels in (("E", y), ("D", seen + y)):
        if name in found and found[name][0].channels[0] != channels:
            raise ValueError(
                f"{file(args, name)}: sees {found[name][0].channels[0]} channels, and with this G {channels} are"
                f" expected; give the {name} of this G, or none"
            )
    return spec


def write(out: Path, spec: Spec, found: Mapping[str, Found]) -> None:
    """Write `out` aside, and rename it.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    G, D = found["G"][1], found["D"][1] if "D" in found else None
    if "E" in found:
        G = {f"{name}.{key}": tensor for name in "GE" for key, tensor in found[name][1].items()}
    with torch.device("meta"):
        net = spec.build()
    load_strict(net, G)
    stored = Generator(net, spec, Inference(dropout=False)).to_bytes()
    tensors = {name: {f"net/{key}": t for key, t in state.items()} for name, state in (("G", G), ("D", D)) if state}
    # Of no order: the samples were others, so that no run takes this for an earlier part of itself.
    about = {"p2p": __version__, "torch": torch.__version__, "order": {}}
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        checkpoint.save(aside, 0, tensors, about, {FILE: stored})
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
