"""Where a run stands: `python -m launch.status runs/bags`."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.argv import Parser
from p2p import checkpoint, status
from p2p.log import clock

FINISHED, NOT_FINISHED, NO_RUN, STOPPED = 0, 1, 2, 3
RECENT = 5
"""Lines of the log that tell the present speed."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(prog="p2p-status", description="Say where a run stands, what it last saved, how long it has to go.")
    p.add_argument("run", type=Path, help="folder of the run")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 finished, 3 stopped on request and to be gone on with, 1 running or failed or killed, 2 no run."""
    run = parser().parse_args(argv).run
    about = status.read(run)
    if not about:
        print(f"p2p-status: {run}: no run is here; give the folder of launch.train's --run", file=sys.stderr)
        return NO_RUN
    state = present(run, about)
    lines = scalars(run)
    said = {
        "state": f"{state}: {who(about)}",
        "why": about.get("why", "") if state == "failed" else "",
        "images": progress(about, lines),
        "figures": figures(lines),
        "saved": saved(run),
        "left": left(about, lines) if state == "running" else "",
    }
    print("\n".join(f"{name:9} {text}" for name, text in said.items() if text))
    return {"finished": FINISHED, "stopped": STOPPED}.get(state, NOT_FINISHED)


def present(run: Path, about: Mapping[str, Any]) -> str:
    """The state of a run; one that says `running` and whose lock nobody holds was killed."""
    if status.held(run):
        return "running"
    return "killed" if about.get("state") == "running" else str(about.get("state"))


def who(about: Mapping[str, Any]) -> str:
    """Job, ranks and main machine."""
    job = about.get("job") or f"process {about.get('pid')}"
    ranks = about.get("ranks", 1)
    return f"{job}, {ranks} rank{'s' * (ranks > 1)}, rank 0 on {about.get('host')}, {ago(about.get('time', 0))}"


def scalars(run: Path) -> list[dict[str, Any]]:
    """The run's log so far; a last line that is being written is left out."""
    try:
        lines = (run / "scalars.jsonl").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict) and {"images", "time"} <= line.keys()]


def progress(about: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """`12,000 of 40,000 (30 %), 12 s ago`."""
    last = lines[-1] if lines else {"images": about.get("images", 0), "time": about.get("time", 0)}
    images, total = max(last["images"], about.get("images", 0)), about.get("total", 0)
    share = f" ({images / total:.1%})" if total else ""
    return f"{images:,} of {total:,}{share}, {ago(last['time'])}"


def figures(lines: Sequence[Mapping[str, Any]]) -> str:
    """The last of each figure."""
    latest: dict[str, float] = {}
    for line in lines[-RECENT:]:
        latest |= {k: v for k, v in line.items() if isinstance(v, int | float) and k not in ("images", "time")}
    return "  ".join(f"{name} {value:.4g}" for name, value in latest.items())


def saved(run: Path) -> str:
    """The newest checkpoint, with its size and age."""
    path = checkpoint.newest(run)
    if path is None:
        return "nothing yet"
    try:
        size = sum(file.stat().st_size for file in path.iterdir())
        return f"{path} ({size / 1e6:,.0f} MB, {ago(path.stat().st_mtime)})"
    except OSError:  # an old one, just being removed
        return str(path)


def left(about: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """Time to the end, at the pace of the last lines, with pictures and checkpoints."""
    began = about.get("began", 0)
    recent = [line for line in lines if line["time"] >= began][-RECENT:]
    if len(recent) < 2 or recent[-1]["images"] <= recent[0]["images"] or recent[-1]["time"] <= recent[0]["time"]:
        return "not known yet"
    pace = (recent[-1]["images"] - recent[0]["images"]) / (recent[-1]["time"] - recent[0]["time"])
    return f"{clock((about.get('total', 0) - recent[-1]['images']) / pace)} at {pace:.3g} images/s"


def ago(then: float) -> str:
    """`0:01:02 ago`."""
    return f"{clock(max(0.0, time.time() - then))} ago"


if __name__ == "__main__":
    sys.exit(main())
