"""BLIP-Diffusion: Pre-trained Subject Representation for Controllable Text-to-Image Generation and Editing
(Li, Li, Hoi, NeurIPS 2023), with a Canny ControlNet as its stylisation mode.

    edges = Canny(content)                                          all that is kept of the content photo
    q     = Q-Former(style image, "Cats")                           asked for what the style image shows
    text  = CLIP("a", q_1 .. q_16, "Bears a Bears image, ...")      the prompt names what the content shows
    image = VAE(x_0),  x_T = noise,  eps = null + s (eps(x_t, t, text, edges) - null),  s = 7.5, PNDM

Style enters through the vectors q alone; the prompt names no style and the content's colours are not seen.
"""

from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler
from torch import nn

from evaluation.core.errors import UserError, refused
from evaluation.core.files import digest, read_json
from style_transfer.blip.edges import edge_map, to_bytes
from style_transfer.blip.released import (
    LIBRARY,
    UNFIT,
    load_library,
    load_qformer,
    load_scheduler,
    load_text_encoder,
    load_tokenizer,
    load_words,
)
from style_transfer.core.blocks import full_precision

FILES = {
    "model_index.json": "where the vectors go among the tokens; mean and deviation of the style image",
    "qformer": "folder: image tower, Q-Former and projection",
    "text_encoder": "folder: SD 1.5's text encoder, trained on",
    "unet": "folder: SD 1.5's UNet, trained on",
    "vae": "folder: SD 1.5's autoencoder",
    "controlnet": "folder: SD 1.5's Canny ControlNet",
    "scheduler": "folder: settings of PNDM",
    "tokenizer": "folder: CLIP's vocabulary",
    "vocab.txt": "the vocabulary of bert-base-uncased (the release fetches it by name)",
}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
NEGATIVE = (
    "over-exposure, under-exposure, saturated, duplicate, out of frame, lowres, cropped, worst quality, "
    "low quality, jpeg artifacts, morbid, mutilated, out of frame, ugly, bad anatomy, bad proportions, "
    "deformed, blurry, duplicate"
)
SOLVERS = {"pndm": PNDMScheduler, "dpm": DPMSolverMultistepScheduler}


def listed(names: str | list[str], count: int) -> list[str]:
    """One name for all, or as many."""
    return [names] * count if isinstance(names, str) else list(names)


def noise_of(seed, shape) -> torch.Tensor:
    """Standard normal float32 drawn on the CPU, a function of the seed (any JSON-like value) alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(digest(seed), 16) >> 1))


def load(files: dict) -> "BlipDiffusion":
    """The network, float32, from {name in FILES: path}. Raises UserError if one is missing or unfit."""
    for name in FILES:
        if name not in files or not Path(files[name]).exists():
            raise UserError(
                f"{files.get(name, name)}: no such file or folder; BLIP-Diffusion needs it ({FILES[name]})"
            )
    index = read_json(files["model_index.json"])
    qformer, text_encoder = load_qformer(files["qformer"]), load_text_encoder(files["text_encoder"])
    words = load_words(files["vocab.txt"], qformer)
    tokenizer = load_tokenizer(files["tokenizer"], text_encoder)
    scheduler = load_scheduler(files["scheduler"])
    library = {name: load_library(name, files[name]) for name in LIBRARY}
    parts = {"words": words, "tokenizer": tokenizer, "scheduler": scheduler, "index": index}
    with refused(f"{files['model_index.json']}: not the release's", *UNFIT):
        network = BlipDiffusion(qformer, text_encoder, **library, **parts)
    return network.eval().requires_grad_(False)


class BlipDiffusion(nn.Module):
    """Stylises by making an image from noise. Sides are divisible by `multiple`; the UNet was trained at 512.

    The methods take and give float32 tensors and run every module in the precision of its weights, also where
    autocast is on.
    """

    def __init__(self, qformer, text_encoder, unet, vae, controlnet, words, tokenizer, scheduler, index):
        super().__init__()
        self.qformer, self.text_encoder = qformer, text_encoder
        self.unet, self.vae, self.controlnet = unet, vae, controlnet
        self.words, self.tokenizer, self.scheduler = words, tokenizer, scheduler
        self.begin = int(index.get("ctx_begin_pos", 2))
        self.mean, self.std = (
            torch.tensor(index.get(name) or usual, dtype=torch.float32).view(3, 1, 1)
            for name, usual in (("mean", CLIP_MEAN), ("std", CLIP_STD))
        )
        self.vae.enable_slicing()  # decodes one image at a time: the peak of memory is there
        self.multiple = 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    def lowered(self, dtype: torch.dtype) -> "BlipDiffusion":
        """This network with weights of `dtype`, but for the VAE's: it runs once an image, and what its last
        layers lose is seen. Noise, latents, guidance and solver are float32 in any case."""
        for name, part in self.named_children():
            part.to(torch.float32 if name == "vae" else dtype)
        return self

    def ids(self, prompts: list[str], length: int) -> torch.Tensor:
        """-> [B,length], padded and cut."""
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True)["input_ids"]
        return torch.tensor(ids, device=self.device)

    def encode_content(self, images: torch.Tensor) -> torch.Tensor:
        """Photos [B,3,H,W] in [0,1] -> their edges, white on black, float32 [B,3,H,W] in [0,1]."""
        return edge_map(images).to(self.device)

    @torch.no_grad()
    def encode_style(self, images, subjects="image") -> torch.Tensor:
        """Style images [B,3,H,W] in [0,1] and the objects on them (one, or B) -> vectors q [B,16,768]."""
        subjects = listed(subjects, len(images))
        size, like = self.qformer.visual_encoder.size, self.qformer.query_tokens
        pictures = ((to_bytes(images, size, size) / 255 - self.mean) / self.std).to(like)
        words = self.words(subjects, padding=True, return_tensors="pt").to(self.device)
        with full_precision(pictures):
            return self.qformer(pictures, words["input_ids"], words["attention_mask"]).float()

    def text(self, vectors, targets, prompt: str, repeats: int) -> torch.Tensor:
        """Vectors q [B,16,768] and the objects to paint (one, or B) -> text [B,77,768].

        The prompt is said `repeats` times, which the authors call its strength.
        """
        targets = listed(targets, len(vectors))
        sentences = [f"a {target} {prompt.replace('{subject}', target).strip()}" for target in targets]
        length = self.text_encoder.positions - vectors.shape[1]
        ids = self.ids([", ".join([sentence] * repeats) for sentence in sentences], length)
        return self.text_encoder(ids, vectors, self.begin).float()

    def eps(self, x, t, text, edges) -> torch.Tensor:
        """Predicted noise [B,C,h,w] of latents x at timestep t, under text [B,77,768] and edges [B,3,H,W]."""
        x, text, edges = (v.to(self.unet.dtype) for v in (x, text, edges))
        down, middle = self.controlnet(x, t, text, edges, return_dict=False)
        out = self.unet(
            x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
        )
        return out.sample.float()

    @torch.no_grad()
    def decode(
        self, edges, vectors, targets="image", prompt="a {subject} image", repeats=20,
        *, seeds=0, steps=100, guidance=7.5, negative=NEGATIVE, solver="pndm",
    ):  # fmt: skip
        """Edges [B,3,H,W], vectors q [B,16,768] and the objects to paint (one, or B), which the prompt names
        -> images [B,3,H,W] in [0,1].

        `seeds`, one for all or a list of B, decide the noise: numbers, strings, or lists of them (say style,
        object, content, reference). `dpm` is a solver for 20 to 30 steps; `pndm` is the release's.
        """
        if solver not in SOLVERS or steps < 1:
            raise UserError(
                f"solver={solver} steps={steps}: blip knows {', '.join(SOLVERS)}, of 1 step or more"
            )
        seeds = seeds if isinstance(seeds, list) else [seeds] * len(edges)
        shape = (self.unet.config.in_channels, *(side // self.multiple for side in edges.shape[2:]))
        scheduler = SOLVERS[solver].from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        noise = torch.stack([noise_of(seed, shape) for seed in seeds]).to(self.device)
        with full_precision(noise):
            text = self.text(vectors, targets, prompt, repeats)
            x = self.denoised(noise * scheduler.init_noise_sigma, text, edges, scheduler, guidance, negative)
            images = self.vae.decode((x / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def denoised(self, x, text, edges, scheduler, guidance: float, negative: str) -> torch.Tensor:
        """Noise [B,C,h,w] -> latents, by all steps of the scheduler; no guidance is 1."""
        if guidance > 1:
            null = self.text_encoder(self.ids([negative], self.text_encoder.positions)).float()
            text, edges = torch.cat([null.expand_as(text), text]), torch.cat([edges, edges])
        for t in scheduler.timesteps:
            e = self.eps(x.repeat(len(text) // len(x), 1, 1, 1), t, text, edges)
            if guidance > 1:
                null, e = e.chunk(2)
                e = null + guidance * (e - null)
            x = scheduler.step(e, t, x).prev_sample
        return x

    def stylise(self, content, style, subjects="image", targets=None, **options):
        """Images [B,3,H,W] in [0,1] -> [B,3,H,W] in [0,1]; options as in `encode_style` and `decode`.

        `targets`: what is painted; None: what `subjects` says is on the style images.
        """
        vectors = self.encode_style(style, subjects)
        return self.decode(self.encode_content(content), vectors, targets or subjects, **options)
