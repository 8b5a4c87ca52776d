"""Pixels to network input, compared with torchvision's transforms and with slices."""

import numpy as np
import pytest
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision import transforms

from study.training.preprocessing import crops_and_flips, normalisation

CPU = torch.device("cpu")


def test_normalisation_equals_torchvision_bit_for_bit() -> None:
    every_value = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = np.stack([every_value, every_value.T, every_value[::-1]], axis=2)
    statistics = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    theirs = transforms.Normalize(*statistics)(transforms.ToTensor()(picture))
    images = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
    assert torch.equal(normalisation(*statistics, CPU)(images)[0], theirs)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24), (7, 7)])
def test_crops_and_flips_pads_with_black_crops_and_mirrors(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, height, width), generator=generator).to(torch.uint8)
    padding = height // 8
    augment = crops_and_flips(40, height, CPU, "a task", 3)
    assert augment.padding == padding
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    positions = torch.tensor([5, 3, 39, 0, 17])  # a batch is in the order of its epoch
    given = augment(images[positions], positions)
    assert given.dtype == torch.uint8
    assert given.shape == (5, 3, height, width)
    assert given.is_contiguous(), "torch has ended processes over other layouts"
    for position, ours in zip(positions.tolist(), given.numpy(), strict=True):
        top, left = int(augment.top[position]), int(augment.left[position])
        cropped = padded[position, :, top : top + height, left : left + width]
        assert np.array_equal(ours, cropped[:, :, ::-1] if augment.mirror[position] else cropped)


def test_crops_and_flips_are_uniform_and_reproducible() -> None:
    augment = crops_and_flips(9000, 32, CPU, "a task", 3)
    for shifts in (augment.top, augment.left):
        counts = torch.bincount(shifts)
        assert len(counts) == 9, "4 pixels to either side, or none"
        assert (counts - 1000).abs().max() < 5 * 1000**0.5
    assert abs(augment.mirror.sum() - 4500) < 5 * 2250**0.5
    assert not torch.equal(augment.top, augment.left)
    again, other = (crops_and_flips(9000, 32, CPU, "a task", epoch) for epoch in (3, 4))
    for name in ("top", "left", "mirror"):
        assert torch.equal(getattr(augment, name), getattr(again, name))
        assert not torch.equal(getattr(augment, name), getattr(other, name))
