"""Files of small ViTs with timm's names and random weights."""

import torch
from safetensors.torch import save_file


def vit_state(image_size=32, patch=16, width=128, depth=2, classes=5, seed=0):
    """timm's `VisionTransformer` state dict, name by name, with weights that give every part an effect."""
    random = torch.Generator().manual_seed(seed)

    def tensor(*shape, scale=0.1):
        return scale * torch.randn(*shape, generator=random)

    def norm():
        return {"weight": 1 + tensor(width), "bias": tensor(width)}

    def linear(inputs, outputs):
        return {"weight": tensor(outputs, inputs, scale=inputs**-0.5), "bias": tensor(outputs)}

    state = {
        "cls_token": tensor(1, 1, width),
        "pos_embed": tensor(1, 1 + (image_size // patch) ** 2, width),
        "patch_embed.proj.weight": tensor(width, 3, patch, patch),
        "patch_embed.proj.bias": tensor(width),
    }
    parts = {"norm": norm(), "head": linear(width, classes)}
    for block in range(depth):
        parts |= {
            f"blocks.{block}.norm1": norm(),
            f"blocks.{block}.attn.qkv": linear(width, 3 * width),
            f"blocks.{block}.attn.proj": linear(width, width),
            f"blocks.{block}.norm2": norm(),
            f"blocks.{block}.mlp.fc1": linear(width, 4 * width),
            f"blocks.{block}.mlp.fc2": linear(4 * width, width),
        }
    return state | {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}


def write_vit(path, **sizes):
    """The file, and what it holds."""
    state = vit_state(**sizes)
    save_file(state, path)
    return state
