"""List, download and read torchvision's data sets and Tiny ImageNet.

Class names and sizes are known in advance, so a grid can be checked without the files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from study.tasks.images import (
    Encoded,
    Listing,
    Split,
    array_split,
    choices,
    file_split,
    image_files,
)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A data set's class names, images per class, and the images' side in pixels if all are equal."""

    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    side: int | None


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_DIGITS: Final = _words("0 1 2 3 4 5 6 7 8 9")
_FASHION: Final = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_CIFAR10: Final = _words("airplane automobile bird cat deer dog frog horse ship truck")
_CIFAR100: Final = _words(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
    couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
    house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket
    rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
    turtle wardrobe whale willow_tree wolf woman worm
    """
)

_FOOD101: Final = _words(
    """
    apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets
    bibimbap bread_pudding breakfast_burrito bruschetta caesar_salad cannoli caprese_salad
    carrot_cake ceviche cheese_plate cheesecake chicken_curry chicken_quesadilla
    chicken_wings chocolate_cake chocolate_mousse churros clam_chowder club_sandwich
    crab_cakes creme_brulee croque_madame cup_cakes deviled_eggs donuts dumplings edamame
    eggs_benedict escargots falafel filet_mignon fish_and_chips foie_gras french_fries
    french_onion_soup french_toast fried_calamari fried_rice frozen_yogurt garlic_bread
    gnocchi greek_salad grilled_cheese_sandwich grilled_salmon guacamole gyoza hamburger
    hot_and_sour_soup hot_dog huevos_rancheros hummus ice_cream lasagna lobster_bisque
    lobster_roll_sandwich macaroni_and_cheese macarons miso_soup mussels nachos omelette
    onion_rings oysters pad_thai paella pancakes panna_cotta peking_duck pho pizza pork_chop
    poutine prime_rib pulled_pork_sandwich ramen ravioli red_velvet_cake risotto samosa
    sashimi scallops seaweed_salad shrimp_and_grits spaghetti_bolognese spaghetti_carbonara
    spring_rolls steak strawberry_shortcake sushi tacos takoyaki tiramisu tuna_tartare
    waffles
    """
)

# MNIST and SVHN: counted from the official labels. The others have classes of equal size.
KNOWN: Final = {
    "MNIST": Known(
        class_names=_DIGITS,
        train_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        test_counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        side=28,
    ),
    "FashionMNIST": Known(
        class_names=_FASHION, train_counts=(6000,) * 10, test_counts=(1000,) * 10, side=28
    ),
    "CIFAR10": Known(
        class_names=_CIFAR10, train_counts=(5000,) * 10, test_counts=(1000,) * 10, side=32
    ),
    "CIFAR100": Known(
        class_names=_CIFAR100, train_counts=(500,) * 100, test_counts=(100,) * 100, side=32
    ),
    "SVHN": Known(
        class_names=_DIGITS,
        train_counts=(4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
        test_counts=(1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        side=32,
    ),
    "Food101": Known(
        class_names=_FOOD101, train_counts=(750,) * 101, test_counts=(250,) * 101, side=None
    ),
}

# Only the files contain the class names; without the files, classes are named by numbers.
TINY_IMAGENET: Final = Known(
    class_names=tuple(str(label) for label in range(200)),
    train_counts=(500,) * 200,
    test_counts=(50,) * 200,
    side=64,
)


@dataclass(frozen=True, kw_only=True)
class TorchvisionImages:
    """A data set of torchvision. `dataset`: the class in torchvision; files are in the data directory."""

    dataset: str

    def __post_init__(self) -> None:
        if self.dataset not in KNOWN:
            raise ValueError(f"dataset={self.dataset!r}: choose one of {', '.join(KNOWN)}")


@dataclass(frozen=True, kw_only=True)
class TinyImageNetImages:
    """Tiny ImageNet as published: 200 classes, 64×64; its validation images are the test split.

    `folder`: relative to the data directory, with train/<wnid>/images/, val/images/,
    val/val_annotations.txt and words.txt. Classes are sorted by wnid and named by their first word.
    """

    folder: str = "tiny-imagenet-200"


_TINY_URL: Final = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_TINY_MD5: Final = "90528d7ca1a48142e341f4ef8d21d0de"


def known_listing(source: TorchvisionImages | TinyImageNetImages) -> Listing:
    """Return the Listing before a download: labels in no particular order, and no images.

    Until the files of Tiny ImageNet exist, its classes are named by their numbers.
    """
    known = KNOWN[source.dataset] if isinstance(source, TorchvisionImages) else TINY_IMAGENET

    def read(positions: np.ndarray) -> Iterator[tuple[str, Encoded]]:
        raise ValueError("image_size=None: its images have several sizes, choose one")

    def split(counts: tuple[int, ...]) -> Split:
        return Split(labels=np.repeat(np.arange(len(counts)), counts), read=read)

    return Listing(
        class_names=known.class_names,
        train=split(known.train_counts),
        test=split(known.test_counts),
        image_shape=None if known.side is None else (3, known.side, known.side),
    )


def list_torchvision(source: TorchvisionImages, data: Path) -> Listing:
    """List the data set in torchvision's folders below `data`; download it if it is missing.

    Raises ValueError if the data set can be neither read nor downloaded, or is not the official version.
    """
    from torchvision import datasets

    known = KNOWN[source.dataset]
    kind = getattr(datasets, source.dataset)

    def split(name: str, counts: tuple[int, ...]) -> Split:
        which: dict[str, Any] = {"train": name == "train"}
        if source.dataset in ("SVHN", "Food101"):
            which = {"split": name}
        try:
            opened = kind(data, download=True, **which)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"dataset={source.dataset!r}: neither read nor downloaded "
                f"(data directory: {data}): {error}"
            ) from error
        images = _split_of(source.dataset, name, opened, data)
        if not np.array_equal(np.bincount(images.labels, minlength=len(counts)), counts):
            raise ValueError(
                f"dataset={source.dataset!r}: {data} is not the official data set "
                f"({len(images.labels)} {name} images instead of {sum(counts)}, or other labels)"
            )
        return images

    return Listing(
        class_names=known.class_names,
        train=split("train", known.train_counts),
        test=split("test", known.test_counts),
    )


def list_tiny_imagenet(source: TinyImageNetImages, data: Path, *, download: bool) -> Listing:
    """List Tiny ImageNet below `data`; download it first if `download` is set.

    Raises ValueError if the files are incomplete, not downloadable, or contain an unknown class.
    """
    root = data / source.folder
    if not root.is_dir():
        if not download:
            return known_listing(source)
        _download_tiny_imagenet(root)
    annotations, words = _checked_layout(source, data)
    wnids = sorted(p.name for p in (root / "train").iterdir() if p.is_dir())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train_paths, train_labels = [], []
    for wnid, label in label_of.items():
        found = image_files(root / "train" / wnid / "images")
        train_paths += found
        train_labels += [label] * len(found)
    test_paths, test_labels = [], []
    for line in annotations.read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        if wnid not in label_of:
            raise ValueError(f"{annotations}: {name} is of {wnid!r}, choose from {choices(wnids)}")
        test_paths.append(root / "val" / "images" / name)
        test_labels.append(label_of[wnid])
    return Listing(
        class_names=_first_words(wnids, words),
        train=file_split(train_paths, train_labels, data),
        test=file_split(test_paths, test_labels, data),
    )


def tiny_imagenet_files(source: TinyImageNetImages, data: Path) -> list[Path]:
    """Return all files except the unlabelled test set. Raises ValueError for another layout."""
    root = data / source.folder
    texts = _checked_layout(source, data)
    return [*image_files(root / "train"), *image_files(root / "val"), *texts]


def _checked_layout(source: TinyImageNetImages, data: Path) -> tuple[Path, Path]:
    root = data / source.folder
    annotations, words = root / "val" / "val_annotations.txt", root / "words.txt"
    for path in (root / "train", annotations, words):
        if not path.exists():
            raise ValueError(
                f"folder={source.folder!r}: no {path}, which the official layout has "
                f"(data directory: {data})"
            )
    return annotations, words


def _split_of(dataset: str, name: str, opened: Any, data: Path) -> Split:
    if dataset == "Food101":
        folder, names = data / "food-101", KNOWN[dataset].class_names
        listed = json.loads((folder / "meta" / f"{name}.json").read_text())
        pairs = [(names.index(food), image) for food in names for image in listed[food]]
        paths = [folder / "images" / f"{image}.jpg" for _, image in pairs]
        return file_split(paths, [label for label, _ in pairs], data)
    if dataset == "SVHN":
        return array_split(opened.data.transpose(0, 2, 3, 1), opened.labels, f"{dataset} {name}")
    return array_split(np.asarray(opened.data), opened.targets, f"{dataset} {name}")


def _first_words(wnids: list[str], words: Path) -> tuple[str, ...]:
    """Return each class's first word, or all its words if another class has the same first word."""
    lines = (line.split("\t", 1) for line in words.read_text().splitlines() if "\t" in line)
    all_words = dict(lines)
    full = [all_words.get(wnid, wnid) for wnid in wnids]
    first = [text.split(",")[0] for text in full]
    return tuple(
        text if first.count(word) > 1 else word for text, word in zip(full, first, strict=True)
    )


def _download_tiny_imagenet(root: Path) -> None:
    from torchvision.datasets.utils import download_url, extract_archive

    archive = _TINY_URL.rsplit("/", 1)[1]
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url(_TINY_URL, root.parent, archive, _TINY_MD5)
        # Unpacked elsewhere first, so that a partly unpacked folder is never used.
        with tempfile.TemporaryDirectory(dir=root.parent) as folder:
            extract_archive(str(root.parent / archive), folder)
            shutil.move(Path(folder) / "tiny-imagenet-200", root)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"folder={root.name!r}: {root} is not there, and {_TINY_URL} cannot be downloaded: {error}"
        ) from error
