"""Check names and widths of networks, cuts and image shapes.

Must stay importable without torch. Only checks of "timm/<name>" import torch, and cache their results on
disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from study import user_cache
from study.messages import did_you_mean
from study.networks.table import (
    ARCHITECTURES,
    BOTTLENECK_EXPANSION,
    MLP_RATIO,
    NUM_CHANNELS,
    PATCH_SIZE,
    TIMM,
    WIDTH_UNITS,
    Architecture,
    densenet_parts,
)


def check_model(model: str, width: int | None) -> None:
    """Raise ValueError, with the choices, for an unknown network or an invalid width.

    A network in ARCHITECTURES needs a width; "timm/<name>" must have none. The class of "timm/<name>" must
    be timm's ResNet, DenseNet or VisionTransformer itself, and its layers in sequence must equal timm's
    forward pass.
    """
    if model.startswith(TIMM):
        if width is not None:
            raise ValueError(f"width={width!r}: {model} has a fixed width; choose None")
        _check_timm("check_timm", model)
        return
    architecture = _architecture(model)
    unit = WIDTH_UNITS[architecture.family]
    if type(width) is not int or width < 1:
        raise ValueError(
            f"width={width!r}: {model} needs a whole number, 1 or more ({unit}; "
            f"the published network has {architecture.standard_width})"
        )
    if width % architecture.num_heads:
        below = width - width % architecture.num_heads
        nearest = [each for each in (below, below + architecture.num_heads) if each]
        raise ValueError(
            f"width={width!r}: {model} has {architecture.num_heads} attention heads and its {unit} "
            f"must be a multiple of that, e.g. {' or '.join(map(str, nearest))}"
        )


def check_images(model: str, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError if the network cannot take images of this shape (channels, height, width)."""
    channels, height, width = image_shape
    if channels != NUM_CHANNELS:
        raise ValueError(f"image_shape={image_shape}: {model} takes {NUM_CHANNELS} channels")
    if model.startswith(TIMM):
        _check_timm("check_images", model, image_shape)
        return
    architecture = _architecture(model)
    if architecture.family == "vit" and (height % PATCH_SIZE or width % PATCH_SIZE):
        raise ValueError(
            f"image_shape={image_shape}: {model} cuts images into patches of {PATCH_SIZE}×"
            f"{PATCH_SIZE} pixels, height and width must be multiples of {PATCH_SIZE}"
        )
    # A DenseNet transition halves height and width and rounds down, possibly to 0.
    least = 2 ** (len(architecture.depths) - 1) if architecture.family == "densenet" else 1
    if min(height, width) < least:
        raise ValueError(
            f"image_shape={image_shape}: {model} takes images of {least}×{least} pixels or more"
        )


def check_pretrained(model: str) -> None:
    """Raise ValueError if this network has no pretrained weights. Does not download weights."""
    if not model.startswith(TIMM):
        raise ValueError(
            f"start='pretrained': there are no pretrained weights for {model}, whose stem fits small "
            "images; choose a timm network, 'timm/<name>'"
        )
    _check_timm("check_pretrained", model)


def check_trained_channels(model: str, width: int | None, frozen: int, num_trained: int) -> None:
    """Raise ValueError unless `num_trained` channels of the last layer before the head can be trained."""
    if num_trained == 0:
        return
    if model.startswith(TIMM):
        raise ValueError(
            f"trained_channels={num_trained}: {model} is cut between layers only; choose 0, or a network "
            f"of the table ({', '.join(ARCHITECTURES)})"
        )
    last = num_layers(model) - 1
    if frozen != last:
        raise ValueError(
            f"trained_channels={num_trained} with frozen={frozen}: only channels of the last layer before "
            f"the head can be trained, so {model} needs frozen={last}; choose 0, or frozen={last}"
        )
    most = num_channels(model, width)
    if num_trained > most:
        raise ValueError(
            f"trained_channels={num_trained}: the last layer of {model} before the head, at width "
            f"{width}, has {most}; choose 0 to {most}"
        )


def check_seeds_together(model: str, num_seeds: int, frozen: int, num_trained: int) -> None:
    """Raise ValueError unless `num_seeds` seeds can be trained as one network at this cut.

    "timm/<name>" passes here; `study.training.stacked.check_timm_layers`, which needs torch, checks it.
    """
    last = num_layers(model) - 1
    is_head = frozen == last and num_trained == 0
    if num_seeds == 1 or is_head or model.startswith(TIMM):
        return
    if _architecture(model).family != "resnet":
        cut = f"frozen={frozen}" + (f", trained_channels={num_trained}" if num_trained else "")
        raise ValueError(
            f"Recipe.seeds_together={num_seeds} with {cut}: together, seeds of {model} train less than "
            f"1.5 times as fast, except for the head alone; choose seeds_together=1, or frozen={last}"
        )


def num_channels(model: str, width: int | None) -> int:
    """Return the most channels of the last layer before the head that can be trained; 0 for timm."""
    if model.startswith(TIMM):
        return 0
    architecture = _architecture(model)
    assert width is not None
    if architecture.family == "resnet":
        planes = width * 2 ** (len(architecture.depths) - 1)
        return planes * (BOTTLENECK_EXPANSION if architecture.bottleneck else 1)
    if architecture.family == "densenet":
        ends = (0, *densenet_parts(architecture.depths[-1]))
        return width * (ends[-1] - ends[-2])
    return MLP_RATIO * width


def check_head_inputs(model: str, width: int | None, frozen: int, num_read: int) -> None:
    """Raise ValueError unless the head can read only `num_read` features of the frozen layers."""
    if num_read == 0:
        return
    if model.startswith(TIMM) or _architecture(model).family == "vit":
        raise ValueError(
            f"head_inputs={num_read}: only for ResNets and DenseNets of the table, whose head is one "
            f"linear map; {model} is none; choose 0"
        )
    last = num_layers(model) - 1
    if frozen != last:
        raise ValueError(
            f"head_inputs={num_read} with frozen={frozen}: only if all layers but the head are frozen; "
            f"choose 0, or frozen={last}"
        )
    total = num_features(model, width)
    if num_read >= total:
        raise ValueError(
            f"head_inputs={num_read}: the head of {model} at width {width} reads {total}; choose 0 for "
            f"all, or 1 to {total - 1}"
        )


def num_features(model: str, width: int | None) -> int:
    """Return the number of features that the head of a ResNet or DenseNet of the table reads."""
    architecture = _architecture(model)
    if architecture.family == "resnet":
        return num_channels(model, width)
    assert architecture.family == "densenet" and width is not None, model
    features = 2 * width
    for depth in architecture.depths[:-1]:
        features = (features + depth * width) // 2  # a transition halves the channels
    return features + architecture.depths[-1] * width


def num_pieces(model: str, index: int) -> int:
    """Return the number of pieces between which the layer at `index` can be cut; 1 if it cannot be cut.

    - Basic residual block: first convolution and norm; second convolution and norm.
    - Part of a DenseNet's last dense block: each dense layer; in the last part, also the final norm.
    - ViT's encoder block: norm and attention; norm and MLP.
    - ViT's head: norm and pooling; classifier.
    """
    if model.startswith(TIMM):
        return 1
    architecture = _architecture(model)
    last = len(architecture.layer_names) - 1
    if architecture.family == "vit":
        return 1 if index == 0 else 2
    if architecture.family == "resnet":
        return 1 if architecture.bottleneck or index in (0, last) else 2
    ends = densenet_parts(architecture.depths[-1])
    part = index - (last - len(ends))
    if not 0 <= part < len(ends):
        return 1
    return ends[part] - (0, *ends)[part] + (index == last - 1)


def last_piece_channels(model: str, width: int | None) -> int:
    """Return how many of `num_channels` are in the last piece; the others divide the rest equally."""
    is_norm = not model.startswith(TIMM) and _architecture(model).family == "densenet"
    return 0 if is_norm else num_channels(model, width)


def pieces_to_freeze(model: str, index: int) -> range:
    """Return the possible numbers of frozen pieces in the first trained layer, at `index`; includes 0."""
    num = num_pieces(model, index)
    if not model.startswith(TIMM):
        architecture = _architecture(model)
        if architecture.family == "resnet" and index == len(architecture.layer_names) - 2:
            num = 1  # `trained_channels` covers training the whole last convolution
    return range(num)


def check_cut_inside(model: str, given: object, *, most: int) -> None:
    """Raise ValueError unless some layer can be cut after `most` pieces. `given`: for the message."""
    if model.startswith(TIMM):
        raise ValueError(
            f"frozen_pieces={given!r}: {model} is cut between layers only; choose 0, or a network of the "
            f"table ({', '.join(ARCHITECTURES)})"
        )
    choices = max((pieces_to_freeze(model, index) for index in range(num_layers(model))), key=len)
    if len(choices) == 1:
        raise ValueError(f"frozen_pieces={given!r}: {model} is cut between layers only; choose 0")
    if most not in choices:
        raise ValueError(
            f"frozen_pieces={given!r}: no layer of {model} has more than {choices[-1]} pieces that can be "
            f"frozen; choose 0 to {choices[-1]}"
        )


def check_frozen_pieces(model: str, width: int | None, frozen: int, num_frozen: int) -> None:
    """Raise ValueError unless `num_frozen` pieces can be frozen above `frozen` whole layers."""
    if num_frozen == 0:
        return
    check_cut_inside(model, num_frozen, most=num_frozen)
    choices = pieces_to_freeze(model, frozen)
    if num_frozen in choices:
        return
    what = f"frozen_pieces={num_frozen} with frozen={frozen}"
    if num_frozen < num_pieces(model, frozen):
        raise ValueError(
            f"{what}: that is the training of frozen={frozen + 1} with trained_channels="
            f"{num_channels(model, width)} for {model} at width {width}; choose that"
        )
    layer = f"the layer above that cut of {model}, {layer_names(model)[frozen]},"
    if len(choices) == 1:
        raise ValueError(f"{what}: {layer} has no pieces; choose 0")
    raise ValueError(f"{what}: {layer} has {len(choices)} pieces; choose 0 to {choices[-1]}")


def layer_names(model: str) -> tuple[str, ...]:
    """Return the names of the network's layers, from the input to the head."""
    if model.startswith(TIMM):
        return tuple(_of_timm("timm_layer_names", model))
    return _architecture(model).layer_names


def num_layers(model: str) -> int:
    """Return the number of layers L, including the head; `frozen` may be 0 … L − 1."""
    return len(layer_names(model))


def standard_width(model: str) -> int | None:
    """Return the width of the published network; None for "timm/<name>"."""
    return None if model.startswith(TIMM) else _architecture(model).standard_width


def _check_timm(check: str, *arguments: Any) -> None:
    if fault := _of_timm(check, *arguments):
        raise ValueError(fault)


def _of_timm(question: str, *arguments: Any) -> Any:
    """Call a function on a timm network; return its result or its ValueError's message, "" for None.

    If torch is not loaded, use the disk cache of results by the same package versions. Training, with
    torch, checks again.
    """
    return (_answer if "torch" in sys.modules else _kept_answer)(question, *arguments)


@cache
def _kept_answer(question: str, *arguments: Any) -> Any:
    return user_cache.cached(_key(question, arguments), lambda: _answer(question, *arguments))


@cache
def _answer(question: str, *arguments: Any) -> Any:
    from study.networks import families, timm_models  # load torch

    questions: dict[str, Callable[..., Any]] = {
        "check_timm": families.check_timm,
        "timm_layer_names": families.timm_layer_names,
        "check_images": timm_models.check_images,
        "check_pretrained": timm_models.check_pretrained,
    }
    try:
        answer = questions[question](*arguments) or ""
    except ValueError as error:
        answer = str(error)
    user_cache.write(_key(question, arguments), answer)
    return answer


def _key(question: str, arguments: tuple[Any, ...]) -> list[Any]:
    from study.store.provenance import code_version, packages

    return ["timm", question, arguments, code_version(), packages()]


def _architecture(model: str) -> Architecture:
    if model not in ARCHITECTURES:
        hint = did_you_mean(model, ARCHITECTURES)
        raise ValueError(
            f"model={model!r}: choose one of {', '.join(ARCHITECTURES)}, or 'timm/<name>' for a "
            f"timm network of class ResNet, DenseNet or VisionTransformer{hint}"
        )
    return ARCHITECTURES[model]
