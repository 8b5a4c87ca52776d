"""What is known of published data sets before they are downloaded.

Owns class names and numbers of images, so that a grid can be checked on a machine that has none of
the files; `torchvision_tasks` refuses files that do not agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Known:
    """A data set's class names, its images of each class, and their side in pixels if all agree."""

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

# Counts of MNIST and SVHN: by counting the official labels; the others have equal classes.
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

# Its class names are in its files alone: until then the classes have numbers.
TINY_IMAGENET: Final = Known(
    class_names=tuple(str(label) for label in range(200)),
    train_counts=(500,) * 200,
    test_counts=(50,) * 200,
    side=64,
)
