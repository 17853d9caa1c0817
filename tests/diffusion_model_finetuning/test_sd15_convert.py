"""SD 1.5's exact architecture converted both ways, without --config. `bash scripts/smoke_sd15.sh convert`"""

import filecmp
import gc
import json

import pytest
import torch

from diffusion_model_finetuning import convert
from diffusion_model_finetuning.core import formats
from diffusion_model_finetuning.core.load import SD15, empty
from diffusion_model_finetuning.core.read import PARTS
from evaluation.core import environment
from evaluation.core.tensors import save_tensors
from tests.full_size import MEMORY


@pytest.mark.sd15
def test_convert_at_full_size(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {part: {k: t.shape for k, t in empty(SD15, part).state_dict().items()} for part in PARTS}
    networks = [
        {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in shapes[part].items()}
        for part in PARTS
    ]
    first, folder, second = tmp_path / "sd15.ckpt", tmp_path / "sd15", tmp_path / "again.ckpt"
    save_tensors(first, formats.to_compvis(*networks), wrapped=True)
    del networks
    gc.collect()
    convert.main([str(first), str(folder)])
    assert len(json.loads((folder / "tokenizer" / "vocab.json").read_text())) == 49_408
    convert.main([str(folder), str(second)])
    assert filecmp.cmp(first, second, shallow=False)
    state = torch.load(second, weights_only=True, mmap=True)["state_dict"]
    assert sum(key.startswith((formats.UNET, formats.VAE, formats.TEXT)) for key in state) == 1130 + 1
    peak = environment.peak_memory("cpu")
    print(f"peak memory {peak / 1e9:.1f} GB, file {first.stat().st_size / 1e9:.2f} GB")
    assert peak < MEMORY
