"""A plan in words, for the reader of the log."""

from p2p.plan import Plan


def describe(plan: Plan) -> str:
    """What was derived from the settings, in lines."""
    c, shares = plan.config, plan.shares
    images = f"{min(shares)}" if min(shares) == max(shares) else f"{min(shares)} to {max(shares)}"
    micro = f" in micro-batches of {plan.micro}" if plan.micro else ""
    shards = f"{len(plan.train.counts)} shard{'s' * (len(plan.train.counts) > 1)}"
    val = f"; validation {plan.val.folder}: {sum(plan.val.counts):,}" if plan.val else "; no validation"
    return "\n".join(
        [
            f"data    {plan.train.folder}: {plan.order.size:,} pairs in {shards}{val}",
            *nets(plan),
            f"engine  {c.engine.precision}, {engine(plan)}",
            f"batch   {c.data.batch} = {plan.world} rank{'s' * (plan.world > 1)} x {images} images{micro}",
            f"run     {plan.total:,} images, {plan.total // c.data.batch:,} steps",
        ]
    )


def nets(plan: Plan) -> list[str]:
    """The networks, a line for each stage."""
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in plan.shapes.items()}
    words = ", ".join(f"{name} {spec.name} {sizes[name]:,}" for name, spec in plan.networks.items())
    until = f", to {plan.total:,} images" if plan.name else ""
    return [*(nets(plan.before) if plan.before else []), f"nets    {words} parameters{until}{plan.name}"]


def engine(plan: Plan) -> str:
    """How gradients and optimisers are distributed."""
    e = plan.config.engine
    zero = f"DeepSpeed ZeRO-{e.zero_stage}{' offloaded' * e.offload}"
    name = zero if e.name == "deepspeed" else "DDP" if plan.world > 1 else "one process"
    return name + ", exact" * (e.reduction == "exact")
