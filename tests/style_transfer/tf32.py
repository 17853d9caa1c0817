"""A CPU that rounds as a GPU does by default: the factors of convolutions and products to TF32's 10 bits."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"}


def rounded(x):
    """float32 to the nearest of 10 bits of mantissa."""
    if not torch.is_tensor(x) or x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class TF32(TorchDispatchMode):
    """As long as `torch.backends` allows it, as it does on a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in PRODUCTS and torch.backends.cuda.matmul.allow_tf32:
            args = [rounded(x) for x in args]
        if name == "convolution" and torch.backends.cudnn.allow_tf32:
            args = [rounded(args[0]), rounded(args[1]), *args[2:]]
        return function(*args, **(kwargs or {}))
