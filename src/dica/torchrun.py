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
    """Run torchrun's command line; return the code of the first process that failed, 75 after SIGTERM or SIGINT."""
    # It would also pass on SIGHUP and SIGQUIT, for which nothing is saved, and kill after 30 seconds.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "300")
    try:
        run.main(arguments)
    except (SignalException, KeyboardInterrupt):
        return INTERRUPTED  # it has handed the signal on and waited until the processes had saved their state
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return max(failure.exitcode, 1)  # negative: killed by a signal
    return 0


if __name__ == "__main__":
    sys.exit(main())
