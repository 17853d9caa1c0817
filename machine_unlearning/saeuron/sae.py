"""SAeUron's sparse autoencoder (SAE): its forward pass, losses and training, and its files

x [m] is what a block of the UNet gives for one place of the image, a patch; n latents, of which k are kept:

    z~ = relu(E (x - c) + b)        z: the largest of z~, the others 0        D(z) = z D + c

The k largest of each patch are kept (form `patch`), but in training the k P largest of all P patches of a
batch (form `batch`). A latent not kept for long is dead; dead ones learn what the others leave over:

    L = FVU + alpha aux     FVU = sum |D(z) - x|^2 / V     aux = min(2 q / m, 1) sum |z_d D - x + D(z)|^2 / V

V = sum |x - mean x|^2; q: how many are dead; z_d: the largest of theirs, min(m / 2, q) a patch.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from evaluation.core.checkpoint import Checkpoint
from evaluation.core.errors import UserError
from evaluation.core.files import read_json, write_json
from evaluation.core.tensors import read_tensors, save_tensors

FILE, SIZES = "sae.safetensors", "cfg.json"  # of an SAE's folder, as the authors release theirs
PATCHES = 4096  # encoded at once, outside training


class SAE(nn.Module):
    """n latents of m inputs. Its tensors have the names of the authors' files."""

    def __init__(self, inputs: int, latents: int, k: int):
        super().__init__()
        self.k, self.encoder = k, nn.Linear(inputs, latents)
        self.W_dec = nn.Parameter(torch.empty(latents, inputs))
        self.b_dec = nn.Parameter(torch.zeros(inputs))

    def start(self, generator: torch.Generator) -> "SAE":
        """Draws E, on the CPU, as torch's linear layers are; D is E with unit rows."""
        nn.init.kaiming_uniform_(self.encoder.weight.data, a=5**0.5, generator=generator)
        nn.init.zeros_(self.encoder.bias)
        self.W_dec.data.copy_(unit_rows(self.encoder.weight.data))
        return self

    def activate(self, x):
        """x [P,m] -> z~ [P,n]."""
        return self.encoder(x - self.b_dec).relu()

    def encode(self, x):
        """x [P,m] -> z [P,n], the k largest of each patch."""
        return largest(self.activate(x), self.k, "patch")

    def decode(self, z):
        """z [P,n] -> D(z) [P,m]."""
        return z @ self.W_dec + self.b_dec


def unit_rows(rows):
    return rows / (rows.norm(dim=1, keepdim=True) + torch.finfo(rows.dtype).eps)


def largest(z, count: int, form: str):
    """z [P,n] with all but the largest zeroed: `count` of each patch, or count P of the whole batch."""
    rows, count = (z.view(1, -1), count * len(z)) if form == "batch" else (z, count)
    places = rows.detach().topk(count, dim=1, sorted=False).indices
    return torch.zeros_like(rows).scatter(1, places, rows.gather(1, places)).view_as(z)


def losses(sae: SAE, x, dead, form: str = "batch", aux: str = "correct"):
    """FVU, aux and z [P,n] of patches x [P,m], of which the latents `dead` (bool [n]) are.

    aux `published`: as the original, where dead latents learn D(z) - x, with c on their side, and this target
    has a gradient.
    """
    active = sae.activate(x)
    z = largest(active, sae.k, form)
    made, variation = sae.decode(z), (x - x.mean(0)).square().sum()
    error = made - x
    fvu = error.square().sum() / variation
    room, count = x.shape[1] // 2, int(dead.sum())
    if not count:
        return fvu, torch.zeros_like(fvu), z
    z_dead = largest(torch.where(dead, active, 0), min(room, count), form)
    left = sae.decode(z_dead) - error if aux == "published" else z_dead @ sae.W_dec + error.detach()
    return fvu, min(count / room, 1) * left.square().sum() / variation, z


def geometric_median(x, rounds: int = 100, moved: float = 1e-5):
    """[m]: the point with the least sum of distances to x [P,m], by Weiszfeld's iteration from the mean."""
    point = x.mean(0)
    for _ in range(rounds):
        weights = 1 / (x - point).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
        before, point = point, weights @ x / weights.sum()
        if (point - before).norm() < moved:
            break
    return point


def train_step(sae: SAE, optimizer, x, since, s) -> dict:
    """One step on patches x [P,m]; `since` [n], the tokens since a latent was kept, is brought up to date.

    Rows of D start a step with norm 1, and the gradient along them is removed.
    """
    sae.W_dec.data = unit_rows(sae.W_dec.data)
    dead = since > s.dead_after
    fvu, aux, z = losses(sae, x, dead, aux=s.aux)
    loss = fvu + s.alpha * aux
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
    rows, gradient = sae.W_dec.data, sae.W_dec.grad
    gradient -= (gradient * rows).sum(1, keepdim=True) * rows
    optimizer.step()
    since += len(x)
    since[(z > 0).any(0)] = 0
    return {"fvu": fvu.detach(), "aux": aux.detach(), "loss": loss.detach(), "norm": norm, "dead": dead.sum()}


def train(sae: SAE, batches: Callable, steps: int, s, state: Path, identity: str) -> Iterator[dict]:
    """Trains the SAE and yields the numbers of each step.

    `batches(start)` yields patches [P,m] from step `start` of the `steps` on. By the file `state`, of the
    training that `identity` stands for, a stopped one goes on. Settings: lr, alpha, aux, dead_after.
    """
    optimizer = torch.optim.Adam(sae.parameters(), s.lr, betas=(0.9, 0.999), eps=6.25e-10)
    checkpoint = Checkpoint(state, identity, sae=sae, optimizer=optimizer)
    kept = checkpoint.resume()
    since = kept.get("since", torch.zeros(len(sae.W_dec))).to(sae.b_dec.device)
    for step, x in enumerate(batches(kept.get("step", 0)), kept.get("step", 0)):
        if step == 0:
            sae.b_dec.data = geometric_median(x)
        optimizer.param_groups[0]["lr"] = rate = s.lr * (1 - step / steps)
        yield train_step(sae, optimizer, x, since, s) | {"lr": rate}
        if checkpoint.due():
            checkpoint.save(step=step + 1, since=since)


def save(folder: str | Path, sae: SAE, **about) -> None:
    """Writes `sae.safetensors`, and `cfg.json` with sizes and what else is `about` it."""
    save_tensors(Path(folder) / FILE, sae.state_dict())
    latents, inputs = sae.W_dec.shape
    write_json(Path(folder) / SIZES, {"d_in": inputs, "k": sae.k, "num_latents": latents} | about)


def load(folder: str | Path, device="cpu") -> SAE:
    """The SAE of a folder, the authors' or ours, in float32 and without gradients. Raises UserError."""
    tensors, folder = read_tensors(Path(folder) / FILE), Path(folder)
    if not (folder / SIZES).is_file():
        raise UserError(f"{folder}: no file {SIZES}, which says how many latents of a patch are kept")
    sizes, shape = read_json(folder / SIZES, k=int, d_in=int), tensors.get("W_dec", torch.empty(0)).shape
    sae = SAE(sizes["d_in"], shape[0], sizes["k"])
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in sae.state_dict().items()}:
        raise UserError(
            f"{folder / FILE}: not an SAE of {sizes['d_in']} inputs, as {SIZES} says; get it again"
        )
    if not 0 < sae.k <= shape[0]:
        raise UserError(f"{folder / SIZES}: k={sae.k} of {shape[0]} latents; get it again")
    sae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return sae.to(device).requires_grad_(False)
