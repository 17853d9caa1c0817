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
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from evaluation.core.errors import UserError, refused
from evaluation.core.files import digest, read_json
from style_transfer.blip import released
from style_transfer.blip.edges import edge_map, to_bytes
from style_transfer.core.blocks import full_precision
from style_transfer.core.networks import stylise
from style_transfer.protocol import Row

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
OPTIONS = {  # attributes of the network
    "subjects": "image",  # what a style picture shows; in the benchmark always its object
    "targets": None,  # what a content shows, which the prompt names: as subjects; in the benchmark its object
    "prompt": "a {subject} image",
    "repeats": 20,  # of the prompt, which the authors call its strength
    "seeds": 0,  # of the noise, one number
    "steps": 100,
    "guidance": 7.5,
    "negative": "over-exposure, under-exposure, saturated, duplicate, out of frame, lowres, cropped, worst "
    "quality, low quality, jpeg artifacts, morbid, mutilated, out of frame, ugly, bad anatomy, bad "
    "proportions, deformed, blurry, duplicate",
    "solver": "pndm",  # or dpm, with 20 to 30 steps
}
LIMITS = {"repeats": (1, 1000), "seeds": (0, 1e15), "steps": (1, 1000), "solver": ("pndm", "dpm")}
SOLVERS = {"pndm": PNDMScheduler, "dpm": DPMSolverMultistepScheduler}


def listed(value, count: int) -> list:
    """One value for all, or as many."""
    return list(value) if isinstance(value, list) else [value] * count


def shown(names, otherwise, count: int) -> list[str]:
    """What `count` images show: the benchmark's rows say it of themselves."""
    others = listed(otherwise, count)
    return [name.object if isinstance(name, Row) else other for name, other in zip(names or others, others)]


def known_by(name) -> list:
    """What the noise knows an image by: not the folder it lies in."""
    return list(name) if isinstance(name, Row) else [name.name]


def noise_of(seed, shape) -> torch.Tensor:
    """Standard normal float32 drawn on the CPU, a function of the seed (any JSON-like value) alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(digest(seed), 16) >> 1))


def load(files: dict) -> "BlipDiffusion":
    """The network, float32, from {name in FILES: path}. Raises UserError if one is missing or unfit."""
    for name in FILES:
        if name not in files or not Path(files[name]).exists():
            need = f"BLIP-Diffusion needs it ({FILES[name]})"
            raise UserError(f"{files.get(name, name)}: no such file or folder; {need}")
    parts = {"index": read_json(files["model_index.json"])}
    parts["qformer"] = released.load_qformer(files["qformer"])
    parts["text_encoder"] = released.load_text_encoder(files["text_encoder"])
    parts["words"] = released.load_words(files["vocab.txt"], parts["qformer"])
    parts["tokenizer"] = released.load_tokenizer(files["tokenizer"], parts["text_encoder"])
    parts["scheduler"] = released.loaded(PNDMScheduler, files["scheduler"])
    parts |= {name: released.load_library(name, files[name]) for name in released.LIBRARY}
    with refused(f"{files['model_index.json']}: not the release's", *released.UNFIT):
        network = BlipDiffusion(**parts)
    return network.eval().requires_grad_(False)


class BlipDiffusion(nn.Module):
    """Stylises by making an image from noise. Sides are divisible by `multiple`; the UNet was trained at 512.

    The methods take and give float32 tensors and run every module in the precision of its weights, also where
    autocast is on. They take the images' names, too: rows of the data set, whose objects come before the
    options `subjects` and `targets`, or paths. The noise is a function of the seed and the names of a pair.
    """

    named, style_multiple = True, 1
    stylise = stylise

    def __init__(self, qformer, text_encoder, unet, vae, controlnet, words, tokenizer, scheduler, index):
        super().__init__()
        vars(self).update(OPTIONS)
        self.qformer, self.text_encoder = qformer, text_encoder
        self.unet, self.vae, self.controlnet = unet, vae, controlnet
        self.words, self.tokenizer, self.scheduler = words, tokenizer, scheduler
        self.begin = int(index.get("ctx_begin_pos", 2))
        self.mean, self.std = (
            torch.tensor(index.get(name) or usual, dtype=torch.float32).view(3, 1, 1)
            for name, usual in (("mean", OPENAI_CLIP_MEAN), ("std", OPENAI_CLIP_STD))
        )
        self.vae.enable_slicing()  # decodes one image at a time: the peak of memory is there
        self.multiple = 2 ** (len(vae.config.block_out_channels) - 1)

    def lowered(self, dtype: torch.dtype) -> "BlipDiffusion":
        """This network with weights of `dtype`, but for the VAE's: it runs once an image, and what its last
        layers lose is seen. Noise, latents, guidance and solver are float32 in any case."""
        for name, part in self.named_children():
            part.to(torch.float32 if name == "vae" else dtype)
        return self

    def ids(self, prompts: list[str], length: int) -> torch.Tensor:
        """-> [B,length], padded and cut."""
        ids = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True)["input_ids"]
        return torch.tensor(ids, device=self.unet.device)

    def encode_content(self, images: torch.Tensor, names=None) -> torch.Tensor:
        """Photos [B,3,H,W] in [0,1] -> their edges, white on black, float32 [B,3,H,W] in [0,1]."""
        return edge_map(images).to(self.unet.device)

    @torch.no_grad()
    def encode_style(self, images: torch.Tensor, names=None) -> torch.Tensor:
        """Style images [B,3,H,W] in [0,1] and the objects on them -> vectors q [B,16,768]."""
        subjects = shown(names, self.subjects, len(images))
        size, like = self.qformer.visual_encoder.size, self.qformer.query_tokens
        pictures = ((to_bytes(images, size, size) / 255 - self.mean) / self.std).to(like)
        words = self.words(subjects, padding=True, return_tensors="pt").to(self.unet.device)
        with full_precision(pictures):
            return self.qformer(pictures, words["input_ids"], words["attention_mask"]).float()

    def text(self, vectors: torch.Tensor, targets: list[str]) -> torch.Tensor:
        """Vectors q [B,16,768] and the objects to paint -> text [B,77,768]."""
        sentences = [f"a {target} {self.prompt.replace('{subject}', target).strip()}" for target in targets]
        length = self.text_encoder.positions - vectors.shape[1]
        ids = self.ids([", ".join([sentence] * self.repeats) for sentence in sentences], length)
        return self.text_encoder(ids, vectors, self.begin).float()

    def eps(self, x, t, text, edges) -> torch.Tensor:
        """Predicted noise [B,C,h,w] of latents x at timestep t, under text [B,77,768] and edges [B,3,H,W]."""
        x, text, edges = (v.to(self.unet.dtype) for v in (x, text, edges))
        down, middle = self.controlnet(x, t, text, edges, return_dict=False)
        control = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.unet(x, t, text, **control).sample.float()

    @torch.no_grad()
    def decode(self, edges: torch.Tensor, vectors: torch.Tensor, names=None) -> torch.Tensor:
        """Edges [B,3,H,W], vectors q [B,16,768] and what the contents show, which the prompt names -> images
        [B,3,H,W] in [0,1]."""
        if self.solver not in SOLVERS or self.steps < 1:
            known = f"blip knows {', '.join(SOLVERS)}, of 1 step or more"
            raise UserError(f"solver={self.solver} steps={self.steps}: {known}")
        contents = [content for content, _ in names] if names else None
        targets = shown(contents, self.targets or self.subjects, len(edges))
        seeds = listed(self.seeds, len(edges))
        if names:
            seeds = [[seed, *map(known_by, pair)] for seed, pair in zip(seeds, names)]
        shape = (self.unet.config.in_channels, *(side // self.multiple for side in edges.shape[2:]))
        scheduler = SOLVERS[self.solver].from_config(self.scheduler.config)
        scheduler.set_timesteps(self.steps, device=self.unet.device)
        noise = torch.stack([noise_of(seed, shape) for seed in seeds]).to(self.unet.device)
        with full_precision(noise):
            text = self.text(vectors, targets)
            x = self.denoised(noise * scheduler.init_noise_sigma, text, edges, scheduler)
            images = self.vae.decode((x / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def denoised(self, x, text, edges, scheduler) -> torch.Tensor:
        """Noise [B,C,h,w] -> latents, by all steps of the scheduler; no guidance is 1."""
        guidance = self.guidance
        if guidance > 1:
            null = self.text_encoder(self.ids([self.negative], self.text_encoder.positions)).float()
            text, edges = torch.cat([null.expand_as(text), text]), torch.cat([edges, edges])
        for t in scheduler.timesteps:
            e = self.eps(x.repeat(len(text) // len(x), 1, 1, 1), t, text, edges)
            if guidance > 1:
                null, e = e.chunk(2)
                e = null + guidance * (e - null)
            x = scheduler.step(e, t, x).prev_sample
        return x
