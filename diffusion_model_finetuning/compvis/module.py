"""Stable Diffusion in CompVis's form, for Lightning: what is trained, averaged and written

    loss = || eps - eps_theta(x_t, c) ||^2      conditioning_key crossattn: c = text
                                                hybrid: c = text, and a photo's latent beside x_t

    average <- d_n average + (1 - d_n) weights,  d_n = min(ema_decay, (1 + n) / (10 + n))

with n = 1, 2, ... the step. (The published trainer averages after every accumulated batch.) The networks are
diffusers' and transformers'; files have them under CompVis's names: in `state_dict` the raw UNet, its average
(`model_ema.*`), autoencoder, text encoder and schedule.
"""

import pytorch_lightning as pl
import torch

from diffusion_model_finetuning.core import formats, ip2p, training
from diffusion_model_finetuning.core.read import PARTS
from diffusion_model_finetuning.core.sd import eps, load_sd
from diffusion_model_finetuning.train_ip2p import ip2p_loss
from evaluation.core.config import check_choices
from evaluation.core.environment import made_with
from evaluation.core.errors import UserError, refused


class LatentDiffusion(pl.LightningModule):
    """`ckpt_path` is a diffusers folder or CompVis file to start from; `config_path` completes a file.

    The learning rate is constant or goes once up, for the `warmup` share of the steps, and down.
    """

    def __init__(
        self,
        learning_rate: float,
        ckpt_path: str,
        config_path: str | None = None,
        conditioning_key: str = "crossattn",
        weight_decay: float = 0.01,
        ema_decay: float = 0.9999,
        one_cycle: bool = False,
        warmup: float = 0.0,
        min_snr: float | None = None,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        check_choices({"conditioning_key": conditioning_key}, {"conditioning_key": ("crossattn", "hybrid")})
        self.learning_rate, self.weight_decay, self.min_snr = learning_rate, weight_decay, min_snr
        self.one_cycle, self.warmup = one_cycle, warmup
        self.sd = load_sd(ckpt_path, config=config_path)
        if conditioning_key == "hybrid":
            ip2p.inflate(self.sd)
        elif ip2p.edits(self.sd):
            raise UserError(f"--model {ckpt_path}: edits photos; train it with conditioning_key: hybrid")
        self.unet, self.vae, self.text_encoder = self.sd.unet, self.sd.vae, self.sd.text_encoder
        self.unet.requires_grad_(True).train().to(memory_format=torch.channels_last)
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.average = formats.lit_ema(self.unet.parameters(), ema_decay)
        self.embedded = {}

    def embed(self, captions: list[str]) -> torch.Tensor:
        """-> [B,L,D]. Every distinct caption goes through the text encoder once, and is kept on the CPU."""
        if new := sorted(set(captions) - self.embedded.keys()):
            with torch.autocast(self.device.type, enabled=False):
                self.embedded |= zip(new, self.sd.embed(new).cpu())
        return torch.stack([self.embedded[caption] for caption in captions]).to(self.device)

    def loss(self, batch: dict) -> torch.Tensor:
        """Of a batch as `compvis.data` describes it."""
        t, noise, text = batch["t"], batch["noise"], self.embed(batch["caption"])
        x, abar_t = self.sd.add_noise(batch["latents"], noise, t), self.sd.abar[t]
        if "photo" in batch:
            return ip2p_loss(self.unet, x, batch["photo"], t, text, noise, abar_t, self.min_snr)
        return training.noise_loss(eps(self.unet, x, t, text), noise, abar_t, self.min_snr)

    def training_step(self, batch: dict, number: int) -> torch.Tensor:
        loss = self.loss(batch)
        if number % self.trainer.log_every_n_steps == 0 and not loss.isfinite():
            raise UserError(
                f"the loss is {loss.item()}; lower model.base_learning_rate, or use precision 32-true"
            )
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch["t"]))
        self.log("lr", self.optimizers().param_groups[0]["lr"])
        return loss

    def validation_step(self, batch: dict, _) -> None:
        loss = self.loss(batch)
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch["t"]))

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(
            self.unet.parameters(), self.learning_rate, weight_decay=self.weight_decay
        )

        def factor(step):
            return training.one_cycle(step / self.trainer.max_steps, self.warmup) if self.one_cycle else 1.0

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        self.average.to(self.device)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.step(self.unet.parameters())

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        names = [name for name, _ in self.unet.named_parameters()]
        average = dict(zip(names, self.average.shadow_params, strict=True))
        average |= {"decay": self.average.decay, "num_updates": self.average.optimization_step}
        parts = [getattr(self, part).state_dict() for part in PARTS]
        checkpoint["state_dict"] = formats.to_compvis(*parts, average)
        checkpoint["made_with"] = made_with(self.device)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Raises UserError for a checkpoint of another network."""
        with refused("--resume: a damaged checkpoint; name an older one, or never", LookupError, ValueError):
            parts = formats.from_compvis(checkpoint["state_dict"])
            average = parts.pop("ema")
            moments = checkpoint["optimizer_states"][0]["state"]
            pairs = zip(self.unet.named_parameters(), self.average.shadow_params, strict=True)
            for i, ((name, parameter), tensor) in enumerate(pairs):
                kept = (parts["unet"][name], average[name], moments[i]["exp_avg"], moments[i]["exp_avg_sq"])
                if any(other.shape != parameter.shape for other in kept):
                    raise ValueError(f"its {name} is of another shape")
                tensor.copy_(average[name])
            self.average.optimization_step = int(average["num_updates"])
        checkpoint["state_dict"] = {
            f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()
        }
