"""torchrun for a Slurm job: it restarts ranks that died, but not over what every start would meet again.

A rank that finds a mistake in what was given says it in one line and ends with code 2; one whose loss is no longer
finite ends with 1. Trying again would only say it again, ten times.
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher import api

NOT_FINITE, MISTAKE = 1, 2


class Agent(LocalElasticAgent):
    """torchrun's own, with this difference."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if any(failure.exitcode in (NOT_FINITE, MISTAKE) for failure in result.failures.values()):
            self._remaining_restarts = 0  # what the base class does where a restart is of no use
        return result


def main() -> int:
    """Exit codes: 0 all ranks ended well, 2 one found a mistake, 1 everything else."""
    api.LocalElasticAgent = Agent  # type: ignore[misc]
    try:
        run.main()
    except ChildFailedError as error:
        return MISTAKE if any(f.exitcode == MISTAKE for f in error.failures.values()) else 1
    except RendezvousError as error:
        print(f"torchrun: {error}", file=sys.stderr)
        return 1
    except SignalException:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
