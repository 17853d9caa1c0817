"""What methods that edit the text encoder need of a model, made of a fixture: an encoder, a table of ids."""

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.seeded_weights import seeded_state_dict


class TextModel:
    """An encoder of seeded weights in float64; `tokens` and `tokenizer` read the fixture's `token_ids`."""

    def __init__(self, description):
        config = description["text_encoder"]["config"]
        self.ids, self.end = description["token_ids"], config["eos_token_id"]
        rule = description["text_encoder"]["weights"]
        state = seeded_state_dict(rule["shapes"], rule["seed"])
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**config)).double().eval().requires_grad_(False)
        self.text_encoder.load_state_dict({n.removeprefix(rule["prefix"]): w for n, w in state.items()})

    def tokens(self, prompts):
        return torch.tensor([self.ids[prompt] for prompt in prompts])

    def tokenizer(self, prompt, truncation=False, add_special_tokens=True):
        ids = self.ids[prompt][: self.ids[prompt].index(self.end) + 1]
        return {"input_ids": ids if add_special_tokens else ids[1:-1]}

    @torch.no_grad()
    def embed(self, prompts):
        return self.text_encoder(self.tokens(prompts))[0]


def close(got, expected, tolerance):
    torch.testing.assert_close(got.float(), torch.from_numpy(np.asarray(expected)), **tolerance)
