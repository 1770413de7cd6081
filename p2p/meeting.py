"""Where ranks leave messages for each other before, and for, their process group."""

import torch.distributed as td

from p2p import dist


class NotYetError(Exception):
    """Ranks did not find each other, or what is left of this job is in the way; another start may find them."""


def meet() -> td.Store:
    """Where the ranks leave messages before, and for, their process group.

    Raises:
        NotYetError: they do not meet there.
    """
    try:
        store, _, _ = next(td.rendezvous("env://", dist.rank(), dist.world(), timeout=dist.PATIENCE))
    except (ValueError, RuntimeError) as error:
        place = f"{dist.address()} within {dist.PATIENCE.seconds} s ({str(error).partition(chr(10))[0]})"
        remedy = "check that all of them run, and that they can reach it"
        raise NotYetError(
            f"rank {dist.rank()} on {dist.host()}: the ranks did not meet at {place}; {remedy}"
        ) from error
    return td.PrefixStore(f"p2p/{dist.attempt()}", store)


def verdicts(store: td.Store, mine: str) -> list[tuple[str, str]]:
    """Each rank's host and what it has to say against starting; an empty text where nothing.

    Raises:
        NotYetError: ranks did not come.
    """
    store.set(f"verdict/{dist.rank()}", f"{dist.host()}\n{mine}")
    said = [value.decode().split("\n", 1) for value in _everyones(store, "verdict")]
    store.set(f"heard/{dist.rank()}", "")
    if dist.main():  # its process may hold the store
        _everyones(store, "heard")
    return [(host, text) for host, text in said]


def _everyones(store: td.Store, what: str) -> list[bytes]:
    keys = [f"{what}/{r}" for r in range(dist.world())]
    try:
        store.wait(keys, dist.PATIENCE)
    except (ValueError, RuntimeError) as error:
        missing = ", ".join(str(r) for r, key in enumerate(keys) if not store.check([key]))
        late = f"ranks {missing} of {dist.world()} did not come within {dist.PATIENCE.seconds} s; see their logs"
        raise NotYetError(f"rank {dist.rank()} on {dist.host()}: {late}") from error
    return store.multi_get(keys)


def heard(store: td.Store, key: str) -> str:
    """What the main rank left for the others.

    Raises:
        NotYetError: nothing, in all the time that it has.
    """
    try:
        return store.get(key).decode()
    except RuntimeError as error:
        late = f"rank 0 of {dist.world()} did not come within {dist.PATIENCE.seconds} s; see its log"
        raise NotYetError(f"rank {dist.rank()} on {dist.host()}: {late}") from error
