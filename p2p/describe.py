"""A plan in words, for the reader of the log."""

from p2p.experiment import Experiment


def describe(experiment: Experiment) -> str:
    """What was derived from the settings, in lines."""
    c, shares = experiment.config, experiment.shares
    images = f"{min(shares)}" if min(shares) == max(shares) else f"{min(shares)} to {max(shares)}"
    micro = f" in micro-batches of {experiment.micro}" if experiment.micro else ""
    shards = f"{len(experiment.train.counts)} shard{'s' * (len(experiment.train.counts) > 1)}"
    val = (
        f"; validation {experiment.val.folder}: {sum(experiment.val.counts):,}" if experiment.val else "; no validation"
    )
    return "\n".join(
        [
            f"data    {experiment.train.folder}: {experiment.order.size:,} pairs in {shards}{val}",
            *nets(experiment),
            f"engine  {c.engine.precision}, {engine(experiment)}",
            f"batch   {c.data.batch} = {experiment.world} rank{'s' * (experiment.world > 1)} x {images} images{micro}",
            f"run     {experiment.total:,} images, {experiment.total // c.data.batch:,} steps",
        ]
    )


def nets(experiment: Experiment) -> list[str]:
    """The networks, a line for each stage."""
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in experiment.shapes.items()}
    words = ", ".join(f"{name} {net.name} {sizes[name]:,}" for name, net in experiment.nets.items())
    until = f", to {experiment.total:,} images" if experiment.name else ""
    return [
        *(nets(experiment.before) if experiment.before else []),
        f"nets    {words} parameters{until}{experiment.name}",
    ]


def engine(experiment: Experiment) -> str:
    """How gradients and optimisers are distributed."""
    e = experiment.config.engine
    zero = f"DeepSpeed ZeRO-{e.zero_stage}{' offloaded' * e.offload}"
    name = zero if e.name == "deepspeed" else "DDP" if experiment.world > 1 else "one process"
    return name + ", exact" * (e.reduction == "exact")
