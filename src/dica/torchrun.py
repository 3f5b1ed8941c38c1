"""torchrun with the exit codes of what it runs: ``python -m dica.torchrun --nproc-per-node N -m dica.train …``.

torchrun itself leaves with 1 and a traceback whatever its processes say, also when it was only asked to stop.
"""

from __future__ import annotations

import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from dica.files import INTERRUPTED


def main(arguments: list[str] | None = None) -> int:
    """Run torchrun's command line; return the code of what failed, 75 after SIGTERM or SIGINT.

    A process that loses another one leaves with 1, in the same second: a code of more than that says what was wrong.
    """
    # It would also pass on SIGHUP and SIGQUIT, for which nothing is saved, and kill after 30 seconds.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")
    try:
        run.main(arguments)
    except (SignalException, KeyboardInterrupt):
        return INTERRUPTED  # it has handed the signal on and waited until the processes had saved their state
    except ChildFailedError as error:
        failures = sorted(error.failures.values(), key=lambda failure: failure.timestamp)
        own = next((failure for failure in failures if failure.exitcode > 1), failures[0])
        return max(own.exitcode, 1)  # negative: killed by a signal
    return 0


if __name__ == "__main__":
    sys.exit(main())
