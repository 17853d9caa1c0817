"""Runs a module as if there were a CUDA device: finds what would fail there, counts what waits for it

    python -m tests.device.pretend_cuda machine_unlearning.esd.train --target Sketch --out runs/esd steps=2

Tensors on the pretend device say `cuda:0`; their numbers are computed on the CPU. As CUDA does, it raises for
operations on mixed devices, `.numpy()`, CPU generators, operators without a CUDA kernel, statistics of an
indexed device before its first use; autocast follows CUDA's lists. As CUDA does not, it raises for factors
of float32 that would be rounded to TF32. Then it prints to stderr, counted by line of the repository (a
backward pass counts for the line that starts it),

    sync   where the CPU waits for the GPU: .item(), copies, CPU indices, shapes that depend on data
    rng    numbers drawn from the GPU's own generator: a CPU, or another GPU, draws others
    order  operators whose CUDA kernels add in no fixed order

and the peak of the bytes that tensors hold, activations included. It knows one device and one process, no
streams, no speed; attention is the composite one. Needs a torch built with CUDA, 2.11 or later.
"""

import os
import runpy
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import safetensors.torch
import torch
import torch._dynamo  # makes its tables from torch.cuda as it is
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

ROOT, CUDA = str(Path(__file__).parents[2]), torch.device("cuda", 0)
SEEDED = torch.Tag.nondeterministic_seeded
FLOATS = torch.float16, torch.bfloat16, torch.float32
WAITS = """_local_scalar_dense nonzero masked_select _unique2 unique_dim unique_consecutive equal is_nonzero
    repeat_interleave _linalg_check_errors _linalg_eigh _linalg_svd linalg_lstsq""".split()
ORDER = """scatter_add scatter_add_ index_add index_add_ cumsum histc grid_sampler_2d_backward
    upsample_bilinear2d_backward upsample_bicubic2d_backward reflection_pad2d_backward
    replication_pad2d_backward _adaptive_avg_pool2d_backward max_pool2d_with_indices_backward""".split()
INDEX = "index index_put index_put_ _index_put_impl_ _unsafe_index".split()
SCALAR = "masked_fill masked_fill_ fill_ where lerp lerp_".split() + INDEX  # take numbers from the CPU
LOWER = """_convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d
    convolution prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linalg_multi_dot chain_matmul linear
    addbmm baddbmm bmm scaled_dot_product_attention""".split()  # autocast has all others in float32, but
WIDEST = """addcdiv addcmul atan2 bilinear cat cross dot grid_sampler index_put scatter_add stack tensordot
    vdot""".split()  # are in the widest of their arguments'
seen, held = Counter(), Counter()
memory = SimpleNamespace(now=0, peak=0, begun=False, rng=torch.get_rng_state())
open_file, save_file = safetensors.safe_open, safetensors.torch.save_file


def note(kind: str, what: str) -> None:
    frame, ours = sys._getframe(2), lambda name: name.startswith(ROOT) and "site-packages" not in name
    while frame and (not ours(frame.f_code.co_filename) or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    where = f"{os.path.relpath(frame.f_code.co_filename, ROOT)}:{frame.f_lineno}" if frame else "?"
    seen[kind, where, what] += 1


def on_gpu(device) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "pretend")


def internal(value):
    """cuda as torch's C++ code knows the pretend device."""
    cuda = isinstance(value, str | torch.device) and str(value).partition(":")[0] == "cuda"
    return torch.device("pretend", 0) if cuda else value


def listed(index):
    """An index with tensors for its lists, which torch would copy to the device out of our sight."""
    if isinstance(index, tuple):
        return tuple(map(listed, index))
    return torch.tensor(index, device="cuda") if isinstance(index, list | np.ndarray) else index


class Held:
    """Counts the bytes of a storage while a tensor has it."""

    def __init__(self, storage):
        self.pointer, self.size, memory.begun = storage.data_ptr(), storage.nbytes(), True
        memory.now += self.size * (not held[self.pointer])
        memory.peak = max(memory.peak, memory.now)
        held[self.pointer] += 1

    def __del__(self):
        if held is None:  # the process ends
            return
        held[self.pointer] -= 1
        memory.now -= self.size * (not held[self.pointer])


class Pretend(torch.Tensor):
    """A tensor on the pretend device; `host` has its numbers."""

    @staticmethod
    def __new__(cls, host):
        like = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, host.size(), **like, device="pretend:0")

    def __init__(self, host):
        self.host, self.held = host, Held(host.untyped_storage())

    def fail(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def to(self, *args, **kwargs):
        return super().to(*map(internal, args), **{key: internal(value) for key, value in kwargs.items()})

    def __getitem__(self, index):
        return super().__getitem__(listed(index))

    def __setitem__(self, index, value):
        super().__setitem__(listed(index), value)

    def __deepcopy__(self, memo):
        made = memo.setdefault(id(self), Pretend(self.host.clone()).requires_grad_(self.requires_grad))
        made._is_param = isinstance(self, torch.nn.Parameter)
        return made

    def __reduce_ex__(self, protocol):
        about = self.host, self.dtype, "cuda:0", self.requires_grad
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, about

    def __tensor_flatten__(self):  # with this, Module.to keeps the identity of parameters
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(inner, *about):
        return Pretend(inner["host"])

    def become(self, value):
        if isinstance(value, Pretend):
            self.host, self.held = value.host, value.held
        else:
            torch.utils.swap_tensors(self, torch.nn.Parameter(value, requires_grad=self.requires_grad))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda = property(lambda self: CUDA), property(lambda self: True)
    is_cpu, get_device = property(lambda self: False), lambda self: 0
    data = property(lambda self: self.detach(), become)
    numpy = __array__ = fail
    tolist, data_ptr = lambda self: self.cpu().tolist(), lambda self: self.host.data_ptr()
    untyped_storage, __repr__ = lambda self: self.host.untyped_storage(), lambda self: f"Pretend({self.host})"


class Mode(TorchDispatchMode):
    """Sees what makes a tensor of nothing, or moves one from the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def tf32() -> bool:
    return torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32


def check(func, name: str, args, kwargs, gpu, cpu) -> None:
    """Raises what CUDA would, notes what it would wait for; `gpu`, `cpu`: tensors among the arguments."""
    generator = next((a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Generator)), None)
    if generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{func}: Expected a 'cuda' device type for generator but found 'cpu'")
    if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), "CUDA"):
        raise NotImplementedError(f"Could not run '{func.name()}' with arguments from the 'CUDA' backend")
    if SEEDED in func.tags and name != "native_dropout":
        note("rng", name)
    if name in WAITS or name in ORDER:
        note("sync" if name in WAITS else "order", {"_local_scalar_dense": "item"}.get(name, name))
    if name in LOWER and any(tensor.dtype == torch.float for tensor in gpu) and tf32():
        raise RuntimeError(f"{func}: its float32 factors would be rounded to TF32")
    if name in INDEX:
        for index in filter(torch.is_tensor, args[1]):
            if isinstance(index, Pretend) and not isinstance(args[0], Pretend):
                raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
            if not isinstance(index, Pretend) or index.dtype in (torch.bool, torch.uint8):
                note("sync", "index by a mask" if isinstance(index, Pretend) else "index from the CPU")
        cpu = [tensor for tensor in cpu if not any(tensor is index for index in args[1])]
    scalars = torch.Tag.pointwise in func.tags or name in SCALAR
    wrong = [tuple(tensor.shape) for tensor in cpu if tensor.ndim or not scalars]
    if gpu and wrong and name not in ("copy_", "_to_copy"):
        raise RuntimeError(f"{func}: Expected all tensors on one device, found cuda:0 and cpu {wrong[0]}")


def dispatch(func, args, kwargs):
    if torch.is_inference_mode_enabled() and func._can_decompose():  # elsewhere autograd takes it to pieces
        with Mode():
            return func.decompose(*args, **kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    gpu, asked = [t for t in tensors if isinstance(t, Pretend)], kwargs.get("device")
    name = func._schema.name.partition("::")[2]
    if not gpu and not on_gpu(asked):
        return func(*args, **kwargs)
    if name == "_fused_sdp_choice":
        return 0  # the composite one
    cpu = [t for t in tensors if not isinstance(t, Pretend)]
    goal = bool(gpu) if asked is None else on_gpu(asked)
    check(func, name, args, kwargs, gpu, cpu)
    target = isinstance(args[0], Pretend) if name == "copy_" else goal
    crosses = cpu if name == "copy_" else name == "_to_copy" and goal != bool(gpu)
    free = kwargs.get("non_blocking") or (name == "copy_" and args[2:] and args[2])
    if crosses and not (target and free):
        note("sync", f"copy to the {'GPU' if target else 'CPU'}")
    bare = {"device": torch.device("cpu")} if on_gpu(asked) else {}
    bare = tree_map(lambda a: a.host if isinstance(a, Pretend) else a, (args, kwargs | bare))
    if SEEDED in func.tags:
        before, _ = torch.get_rng_state(), torch.set_rng_state(memory.rng)
    result = compute(func, *bare)
    if SEEDED in func.tags:
        memory.rng, _ = torch.get_rng_state(), torch.set_rng_state(before)

    def wrap(value):
        if not isinstance(value, torch.Tensor) or any(value is tensor for tensor in cpu):
            return value
        for tensor in gpu:
            if value is tensor.host:  # done in place
                if torch.Tag.inplace_view in func.tags:
                    with torch._C._DisableTorchDispatch():
                        func(*args, **kwargs)
                return tensor
        if not goal or value.device.type == "meta":
            return value
        with torch.inference_mode(value.is_inference()):  # a view of a tensor from outside is none
            return Pretend(value)

    return tree_map(wrap, result)


def compute(func, args, kwargs):
    """On the CPU; what it cannot do in float16, in float32."""
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        if "not implemented for 'Half'" not in str(error):
            raise

    def changed(tree, old, new):
        return tree_map(lambda a: a.to(new) if isinstance(a, torch.Tensor) and a.dtype == old else a, tree)

    args, kwargs = changed((args, kwargs), torch.half, torch.float)
    return changed(func(*args, **kwargs), torch.float, torch.half)


class Opened:
    """safetensors' `safe_open`, which would copy to the device out of our sight."""

    def __init__(self, path, framework="pt", device="cpu", **more):
        self.file, self.device = open_file(path, framework, **more), device

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def get_tensor(self, name):
        tensor = self.file.get_tensor(name)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def get_tensors(self):
        return {name: self.get_tensor(name) for name in self.file.keys()}  # noqa: SIM118


class Backend:
    """What torch asks of a device's module."""

    is_initialized = is_available = lambda self: True
    _is_in_bad_fork, current_device, device_count = lambda self: False, lambda self: 0, lambda self: 1
    manual_seed_all = set_device = synchronize = lambda self, *args: None  # torch.cuda's is called as well
    get_rng_state, get_amp_supported_dtype = lambda self, *args: memory.rng, lambda self: [*FLOATS]

    def set_rng_state(self, state, *args):
        memory.rng = state


def autocast_kernels() -> list:
    """CUDA's rules of autocast for the pretend device."""
    every, ours = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(op, name):
        def run(*args, **kwargs):
            floats = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Pretend) and a.dtype in FLOATS]
            wide = name not in LOWER and (name not in WIDEST or any(a.dtype == torch.float for a in floats))
            dtype = torch.float if wide else torch.get_autocast_dtype("pretend")
            cast = lambda a: a.to(dtype) if any(a is tensor for tensor in floats) else a  # noqa: E731
            with torch._C._ExcludeDispatchKeyGuard(below):
                args, kwargs = tree_map(cast, (args, kwargs))
                return op(*args, **kwargs)

        return run

    known = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA")
    for full in [*known, "aten::cat", "aten::stack"]:
        name, _, overload = full.removeprefix("aten::").partition(".")
        op = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
        if op:
            ours.impl(full, kernel(op, name), "AutocastPrivateUse1")
    return [every, ours]


def install() -> list:
    """From here on there is a CUDA device. Keep what is returned."""
    _setup_privateuseone_for_python_backend("pretend", Backend())
    torch._C._ensureCUDADeviceGuardSet()
    torch.autograd.set_multithreading_enabled(False)
    about = SimpleNamespace(name="pretend", total_memory=2**34, major=8, minor=0, multi_processor_count=1)
    facts = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0,
        "is_bf16_supported": True, "get_device_name": "pretend", "get_device_capability": (8, 0),
        "mem_get_info": (2**34, 2**34), "memory_stats": {}, "get_device_properties": about,
        "device": nullcontext(),
    }  # fmt: skip
    nothing = "_lazy_init synchronize empty_cache ipc_collect".split()
    for name, value in (facts | dict.fromkeys(nothing)).items():
        setattr(torch.cuda, name, lambda *args, value=value, **kwargs: value)

    def reset(device=None):
        if device is not None and torch.device(device).index is not None and not memory.begun:
            raise RuntimeError(f"Invalid device argument {torch.device(device).index}: did you call init?")
        memory.peak = memory.now

    def seed(number):
        memory.rng = torch.Generator().manual_seed(number).get_state()

    torch.cuda.manual_seed = torch.cuda.manual_seed_all = seed
    torch.cuda.init = torch.cuda.set_device = lambda *args: setattr(memory, "begun", True)
    torch.cuda.reset_peak_memory_stats = reset
    torch.cuda.max_memory_allocated = torch.cuda.max_memory_reserved = lambda *args: memory.peak
    torch.cuda.memory_allocated = torch.cuda.memory_reserved = lambda *args: memory.now
    torch.cuda.get_rng_state, torch.cuda.get_rng_state_all = lambda *args: memory.rng, lambda: [memory.rng]
    torch.cuda.set_rng_state = lambda state, *args: setattr(memory, "rng", state)
    torch.cuda.set_rng_state_all = lambda states: setattr(memory, "rng", states[0])
    torch.accelerator.current_accelerator = lambda *args, **kwargs: torch.device("cuda")
    torch.accelerator.is_available = lambda: True
    torch.Tensor.cuda = lambda self, *args, **kwargs: self.to("cuda")
    torch.Tensor.pin_memory = lambda self, *args: self
    safetensors.safe_open = safetensors.torch.safe_open = Opened
    safetensors.torch.save_file = lambda tensors, *args, **kwargs: save_file(
        {name: tensor.cpu() for name, tensor in tensors.items()}, *args, **kwargs
    )

    def there(make):  # these copy out of our sight
        def run(*args, device=None, **kwargs):
            made = make(*args, **kwargs, device="cpu" if on_gpu(device) else device)
            return made.to(device) if on_gpu(device) else made

        return run

    torch.utils._device._device_constructors()  # keeps which functions `with torch.device(...)` is for
    torch.tensor, torch.as_tensor = there(torch.tensor), there(torch.as_tensor)
    begin = torch.autocast.__init__
    torch.autocast.__init__ = lambda self, device_type, *args, **kwargs: begin(
        self, "pretend" if device_type == "cuda" else device_type, *args, **kwargs
    )
    for name in ("is_autocast_enabled", "get_autocast_dtype"):  # torch.utils.checkpoint asks
        asked = getattr(torch, name)
        setattr(torch, name, lambda kind="cuda", asked=asked: asked("pretend" if kind == "cuda" else kind))
    return [autocast_kernels(), Mode().__enter__()]


def forget() -> None:
    """What was noted, and that the device was used: as in a new process."""
    seen.clear()
    memory.begun, memory.peak = False, memory.now


def report() -> None:
    for (kind, where, what), count in sorted(seen.items()):
        print(f"{kind:6}{count:6}  {where}  {what}", file=sys.stderr)
    print(f"peak  {memory.peak / 2**20:.1f} MB in tensors", file=sys.stderr)


if __name__ == "__main__":
    kept = install()
    sys.argv, sys.path[0] = sys.argv[1:], ROOT
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        report()
