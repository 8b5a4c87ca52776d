"""Normalise and augment images, move tensors to a device, and set the precision of a recipe."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from study.run import Recipe
from study.seeds import uniform

# Environment variable for the layout of convolutions on a GPU: 1 for channels last, 0 for channels first.
CHANNELS_LAST: Final = "STUDY_CHANNELS_LAST"


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return `values` on `device`; the host does not wait for a copy to a GPU."""
    if device.type != "cuda" or values.device.type == "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Normalisation:
    """`(pixel / 255 − mean) / std` for each channel: bit-equal to torchvision's ToTensor + Normalize.

    `mean`, `std`: float32, shape (1, c, 1, 1), on the device of the images.
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise `images`, uint8, shape (n, c, h, w). Returns float32 of the same shape."""
        return (images.to(torch.float32) / 255 - self.mean) / self.std


def normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> Normalisation:
    """Return the normalisation with this mean and standard deviation per channel, on `device`."""
    return Normalisation(
        *(
            torch.tensor(v, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for v in (mean, std)
        )
    )


@dataclass(frozen=True)
class CropsAndFlips:
    """Random shifts and mirrorings for one epoch, one for each position in the training set.

    `top`, `left`: int64, shape (n,), pixels from the padded image's corner; `mirror`: bool, shape (n,).
    """

    padding: int
    top: Tensor
    left: Tensor
    mirror: Tensor

    def take(self, other: CropsAndFlips) -> None:
        """Copy the values of `other` into this object's tensors; a captured step reads their memory."""
        for mine, theirs in (
            (self.top, other.top),
            (self.left, other.left),
            (self.mirror, other.mirror),
        ):
            mine.copy_(theirs)

    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        """Crop and flip `images`, uint8, (b, c, h, w). `positions`: in the training set, int64, (b,)."""
        height, width = images.shape[-2:]
        padded = torch.nn.functional.pad(images, (self.padding,) * 4)
        rows = self.top[positions, None] + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(len(positions), width)
        columns = torch.where(self.mirror[positions, None], width - 1 - columns, columns)
        columns = columns + self.left[positions, None]
        batch = torch.arange(len(positions), device=images.device)[:, None, None]
        # Indexing puts the channels last: (b, h, w, c).
        crops = padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        # With permuted strides, torch 2.14 writes out of bounds in narrow convolutions under AVX2.
        return crops.contiguous()


def crops_and_flips(
    num_images: int, image_size: int, device: torch.device, *names: str | int
) -> CropsAndFlips:
    """Draw crops and mirrorings as in He et al. 2016, section 4.2; see `CropsAndFlips`.

    Images are padded with black by an eighth of their side (4 pixels at 32). `names`: the random stream's
    names, including the epoch.
    """
    padding = image_size // 8
    shifts = 2 * padding + 1

    def drawn(what: str) -> Tensor:
        return torch.from_numpy(uniform(num_images, "augment", what, *names))

    return CropsAndFlips(
        padding=padding,
        top=on_device((drawn("top") * shifts).long(), device),
        left=on_device((drawn("left") * shifts).long(), device),
        mirror=on_device(drawn("mirror") < 0.5, device),
    )


def set_precision(recipe: Recipe) -> None:
    """Set torch's global precision switches; needed for each Run, as a worker trains several."""
    fast = recipe.precision != "float32"
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast
    # A Run has few shapes and thousands of steps, so searching for the fastest algorithm pays off.
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False


def layout(recipe: Recipe, device: torch.device) -> torch.memory_format:
    """Return the memory layout of convolution weights.

    On a GPU in reduced precision: channels last, for its tensor cores. CHANNELS_LAST overrides this.
    """
    if device.type != "cuda":
        return torch.contiguous_format
    default = "0" if recipe.precision == "float32" else "1"
    is_last = os.environ.get(CHANNELS_LAST, default) != "0"
    return torch.channels_last if is_last else torch.contiguous_format


def precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """Return a context manager: code in the block computes in the recipe's precision."""
    if recipe.precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
