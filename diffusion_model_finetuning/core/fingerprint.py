"""A base model's fingerprint: different for two models that draw different pixels from the same cell.

Hashed are values of every tensor, the settings that no tensor shows, and what the tokenizer makes of prompts.
The same model as a diffusers folder and as a CompVis file has one fingerprint.
"""

import hashlib
import inspect
import json

from evaluation import canvas

VALUES = 256  # of every tensor, evenly spaced
SCHEDULE = (  # what the cumulative alphas are made from, and what the UNet predicts
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
TEXT = (
    "hidden_act",
    "num_attention_heads",
    "layer_norm_eps",
)  # shapes show the rest; ids do not count
PROMPTS = [  # whose token ids stand for a tokenizer
    *(canvas.prompt(theme, obj) for theme in canvas.THEMES + canvas.UNUSED_STYLES for obj in canvas.OBJECTS),
    "",
    "a painting of 3 cats, 1:20 scale; it's the artist's (first) \"sketch\" - 100% blue/red!",
    "  UPPER  case,\ttabs and\nlines: naïve café, Ärger, 東京 ",
    " ".join(f"word {number}" for number in range(100)),  # longer than any model reads
]


def fingerprint(sd) -> str:
    """16 digits of a StableDiffusion, the same on every machine and device."""
    settings = {
        "scheduler": {key: sd.scheduler.config[key] for key in SCHEDULE},
        "text_encoder": text_settings(sd),
        "unet": changed_settings(sd.unet),
        "vae": changed_settings(sd.vae),
    }
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    sha.update(sd.tokens(PROMPTS).cpu().numpy().tobytes())
    for module in (sd.unet, sd.vae, sd.text_encoder):
        sha.update(tensor_bytes(module))
    return sha.hexdigest()[:16]


def text_settings(sd) -> dict:
    return {key: getattr(sd.text_encoder.config, key) for key in TEXT}


def text_fingerprint(sd) -> str:
    """16 digits that tell apart text encoders that embed the same prompt differently, edited ones too."""
    sha = hashlib.sha256(json.dumps(text_settings(sd)).encode())
    sha.update(sd.tokens(PROMPTS).cpu().numpy().tobytes() + tensor_bytes(sd.text_encoder))
    return sha.hexdigest()[:16]


def tensor_bytes(module) -> bytes:
    """Names and some values of all tensors of a network, the same on every machine and device."""
    content = b""
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.flatten()[:: max(1, tensor.numel() // VALUES)]
        content += name.encode() + values.float().cpu().numpy().tobytes()
    return content


def changed_settings(network) -> dict:
    """What a diffusers network's settings say other than its class by default, but for its native size.

    Without the defaults, since a later version of the library has settings that this one does not know.
    """
    defaults = inspect.signature(type(network).__init__).parameters
    return {
        key: value
        for key, value in network.config.items()
        if key in defaults and key != "sample_size" and _listed(value) != _listed(defaults[key].default)
    }


def _listed(value):
    return list(value) if isinstance(value, tuple) else value
