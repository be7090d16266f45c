"""The settings of a view, and its shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from merba.errors import MerbaError

CHANNELS = {"grey": ("grey",), "flow": ("u", "v"), "grey_flow": ("grey", "u", "v"), "tokens": ("token",)}
"""What is kept of each frame, by the setting `keep`."""


@dataclass(frozen=True)
class ViewSettings:
    """A view; merba/config/schemas/config.schema.yaml describes each field. MerbaError if they don't fit together."""

    name: str
    frames: str
    length: int
    size: int
    keep: str
    pretrained: str | None = None

    def __post_init__(self) -> None:
        if (self.frames == "apex") != (self.length == 1):
            raise MerbaError(
                f"views.{self.name}: `frames: {self.frames}` with length {self.length}; only `frames: apex` has length 1"
            )
        if self.frames == "key" and self.length < 3:
            raise MerbaError(f"views.{self.name}.length is {self.length}; key frames must be at least 3: onset, apex, offset")
        if self.keep == "grey_flow" and self.frames != "apex":
            raise MerbaError(f"views.{self.name}: `keep: grey_flow` is flow from onset to apex; set `frames: apex`")
        if self.pretrained and self.keep != "tokens":
            raise MerbaError(
                f"views.{self.name}.pretrained is the encoder of tokens, but the view keeps {self.keep}: name the weights in the "
                "experiment's `model`"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one clip: (T, C, H, W), or (T, width) for tokens. MerbaError if the file of weights can't be read."""
        if self.keep == "tokens":
            return self.length, token_width(self)
        return self.length, len(CHANNELS[self.keep]), self.size, self.size

    def check_model(self, name: str, input_shape: tuple[int, ...]) -> None:
        """Raise MerbaError if the model `name` takes inputs of another shape than this view's."""
        if tuple(input_shape) != self.shape:
            wanted, given = ("×".join(map(str, shape)) for shape in (input_shape, self.shape))
            raise MerbaError(
                f"{name} takes inputs of {wanted}, the view {self.name} gives {given}: name another view, or change the "
                f"settings of views.{self.name} or the model's"
            )


def token_width(view: ViewSettings) -> int:
    """The width of the tokens that a view's encoder makes, read from the header of its file of weights."""
    from safetensors import SafetensorError, safe_open

    path = Path(view.pretrained or "")
    if not path.is_file():
        raise MerbaError(f"views.{view.name}.pretrained: there is no file {str(path)!r} of the encoder's weights")
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_slice("norm.weight").get_shape()[0]
    except (SafetensorError, OSError) as error:
        raise MerbaError(
            f"views.{view.name}.pretrained: {path} is not a .safetensors file of a ViT with timm's names ({error}); "
            "give one, such as vit_base_patch16_384.orig_in21k_ft_in1k"
        ) from error
