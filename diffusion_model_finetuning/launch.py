"""Starts a training in several processes of this machine, each with its share of every batch

    python -m diffusion_model_finetuning.launch 2 diffusion_model_finetuning.train_sd --settings mini ...

It is torch's launcher (torchrun); but it ends as the training does, with its message and exit code, also
where a process fails or is stopped. Of one that was killed it tells itself. On several machines start
torchrun, or `accelerate launch`.
"""

import argparse
import logging
import signal

from evaluation.core.errors import AGAIN, UserError, command, early
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
    try:
        run.run(run.parse_args(words))
    except SignalException as stop:
        raise SystemExit(128 + stop.sigval) from stop
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        if code < 0:  # it could not tell of itself
            name = signal.Signals(-code).name
            raise UserError(f"a process of the training was killed ({name}); free memory {AGAIN}") from failed
        raise SystemExit(code) from failed


if __name__ == "__main__":
    main()
