"""InstructPix2Pix in its parts (Brooks et al., CVPR 2023): an instruction and a photo make a picture.

The UNet sees the photo's latent beside the noisy one, so its first convolution has twice the inputs; the
added weights start at zero. The photo's latent is the posterior's mode, not scaled. Zeros stand for an absent
photo, the empty prompt for an absent instruction. Guidance is of two strengths (eq. 3):

    eps = e(none) + s_T (e(full) - e(photo)) + s_I (e(photo) - e(none))
"""

import torch

from diffusion_model_finetuning.core.sd import StableDiffusion, ddim_grid, ddim_step, eps, noise_of, to_pixels
from evaluation import canvas
from evaluation.core.errors import UserError

INSTRUCTION = "Transform the image to {theme} style."


def edits(sd: StableDiffusion) -> bool:
    """Whether the UNet takes a photo beside the noisy latents."""
    return sd.unet.config.in_channels == 2 * sd.vae.config.latent_channels


def inflate(sd: StableDiffusion) -> None:
    """Doubles the UNet's input channels, unless that is done; with zero weights, so it ignores photos."""
    channels, old = sd.vae.config.latent_channels, sd.unet.conv_in
    if edits(sd):
        return
    if old.in_channels != channels:
        raise UserError(
            f"--model {sd.path}: its UNet has {old.in_channels} input channels; expected {channels} (text to "
            f"image) or {2 * channels} (InstructPix2Pix)"
        )
    new = torch.nn.Conv2d(2 * channels, old.out_channels, old.kernel_size, old.stride, old.padding)
    new.to(old.weight.device, old.weight.dtype).requires_grad_(False)
    new.weight.zero_()[:, :channels] = old.weight
    new.bias.copy_(old.bias)
    sd.unet.conv_in = new
    sd.unet.register_to_config(in_channels=2 * channels)


def instruction(theme: str, template: str = INSTRUCTION) -> str:
    return canvas.prompt(theme, "", template)


def photo_latents(moments: torch.Tensor) -> torch.Tensor:
    """VAE moments [B,2C,h,w] -> the condition [B,C,h,w]: the posterior's mode, unscaled."""
    return moments.float().chunk(2, dim=1)[0]


def dropped(u: torch.Tensor, share: float):
    """One uniform number per image [B] -> which lose their instruction, and which their photo.

    With share p: p lose the instruction alone, p both, p the photo alone.
    """
    return u < 2 * share, (u >= share) & (u < 3 * share)


def guided_eps(unet, x, t, photo, text, null, s_text: float, s_photo: float) -> torch.Tensor:
    """The guided noise above, for x and photo [B,C,h,w], text [B,L,D], null [1,L,D]: one batch of 3B."""
    null, none = null.expand_as(text), torch.zeros_like(photo)
    x, photos = torch.cat([x, x, x]), torch.cat([photo, photo, none])
    full, image, nothing = eps(unet, torch.cat([x, photos], 1), t, torch.cat([text, null, null])).chunk(3)
    return nothing + s_text * (full - image) + s_photo * (image - nothing)


@torch.no_grad()
def edit(
    sd: StableDiffusion,
    photos: torch.Tensor,
    instructions: list[str],
    seeds: list,
    steps=100,
    s_text=7.5,
    s_photo=1.5,
    precision="float32",
):
    """Photos [B,3,H,W] in [0,1], edited: uint8 [B,H,W,3]. DDIM from each seed's noise, as in `sd.sample`."""
    dtype = getattr(torch, precision)
    with torch.autocast(sd.device.type, dtype, enabled=dtype != torch.float32):
        null, text = sd.embed([""]), sd.embed(instructions)
        photo = photo_latents(sd.moments(photos))
        x = torch.stack([noise_of(seed, photo.shape[1:]) for seed in seeds]).to(sd.device)
        grid, abar = ddim_grid(steps), sd.abar
        for i in reversed(range(steps)):
            e = guided_eps(sd.unet, x, grid[i], photo, text, null, s_text, s_photo)
            x = ddim_step(x, e, abar[grid[i]], abar[grid[i - 1]] if i else abar[0])
        images = sd.decode(x)
    return to_pixels(images)
