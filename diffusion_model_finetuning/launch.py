"""Starts a training in several processes of this machine, each with its share of every batch

    python -m diffusion_model_finetuning.launch 2 diffusion_model_finetuning.train_sd --settings mini ...

It is torch's launcher (torchrun); but it ends as the training does, with its message and exit code, also
where a process fails: the first to fail tells why, once, and the others, which end for its sake, are silent.
Of one that was killed, and of a stop, the launcher tells. On several machines start torchrun, or
`accelerate launch`.
"""

import argparse
import logging
import os
import signal
import tempfile
from pathlib import Path

from evaluation.core.errors import AGAIN, CODES, OF_SEVERAL, Stopped, UserError, command, early
from evaluation.core.flags import whole


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffusion_model_finetuning.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("processes", type=whole(1, 1024), help="one a GPU, or a CPU core")
    parser.add_argument("module", help="diffusion_model_finetuning.train_sd, ...")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the training")
    return parser.parse_args(argv)


early(__name__, parse)  # before the slow imports

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


@command
def main(argv=None):
    args = parse(argv)
    logging.disable(logging.ERROR)  # what torch has to say of processes that tell of themselves
    words = ["--standalone", "--nproc_per_node", str(args.processes), "-m", args.module, *args.arguments]
    with tempfile.TemporaryDirectory() as folder:
        ended = Path(folder) / "code"
        os.environ[OF_SEVERAL] = str(ended)
        try:
            run.run(run.parse_args(words))
        except (SignalException, ChildFailedError) as error:
            del os.environ[OF_SEVERAL]  # what follows speaks for itself
            if ended.is_symlink() and (code := int(ended.readlink().name)):  # and told why
                raise SystemExit(code) from error
            if isinstance(error, SignalException) and error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            if not (codes := _own_codes(error)):
                raise Stopped from error
            if (code := min(codes)) < 0:
                reason = f"was killed ({signal.Signals(-code).name}); free memory {AGAIN}"
                raise UserError(f"a process of the training {reason}") from error
            raise SystemExit(code) from error  # Python, or its reader of flags, told why


def _own_codes(error: SignalException | ChildFailedError) -> set[int]:
    """The exit codes of processes that were not stopped, as all are when another has ended."""
    failures = getattr(error, "failures", {})
    return {failure.exitcode for failure in failures.values()} - {-signal.SIGTERM, *CODES.values()}


if __name__ == "__main__":
    main()
