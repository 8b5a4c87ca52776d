"""Counts of operations and memory, held against the networks themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study.networks.build import build
from study.networks.catalogue import num_layers
from study.planning import cost
from study.planning.cost import cost_of, layer_costs, price
from study.planning.gpus import ASSUMED_SHARE, PEAK_RATES
from study.run import Recipe, Run
from study.tasks import TaskInfo

INFO = TaskInfo(
    name="made up",
    num_train=1000,
    num_test=200,
    classes=("a", "b", "c", "d", "e"),
    image_shape=(3, 32, 32),
)

NETWORKS = [("resnet18", 8), ("resnet50", 4), ("densenet121", 4), ("vit_tiny", 12)]


def run(model: str = "resnet18", width: int = 8, frozen: int = 0, **recipe: object) -> Run:
    length = {} if "num_steps" in recipe else {"num_epochs": 10}
    return Run(
        task="made up",
        size=500,
        model=model,
        width=width,
        frozen=frozen,
        seed=0,
        recipe=Recipe(batch_size=100, **{**length, **recipe}),  # type: ignore[arg-type]
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_layers_add_up_to_the_network_that_is_trained(model: str, width: int) -> None:
    layers = layer_costs(model, width, INFO.num_classes, INFO.image_shape)
    network = build(model, width, INFO.num_classes, INFO.image_shape)
    assert [layer.name for layer in layers] == [name for name, _ in network.named_children()]
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    # torch counts nothing for the CPU's fused attention.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        logits = network.eval()(torch.zeros(2, *INFO.image_shape))
    assert sum(layer.flops for layer in layers) * 2 == counter.get_total_flops()
    assert layers[-1].outputs == logits.shape[1]


def test_attention_is_counted() -> None:
    tokens, width, patch = 1 + 8 * 8, 12, 3 * 4 * 4
    block = layer_costs("vit_tiny", width, INFO.num_classes, INFO.image_shape)[1]
    linear_maps = 2 * tokens * width * width * (3 + 1 + 4 + 4)
    assert block.flops == linear_maps + 2 * (2 * tokens * tokens * width)
    embedding = layer_costs("vit_tiny", width, INFO.num_classes, INFO.image_shape)[0]
    assert embedding.flops == 2 * (tokens - 1) * patch * width


@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_saved_values_are_those_of_a_real_training_step(model: str, width: int) -> None:
    network = build(model, width, INFO.num_classes, INFO.image_shape)
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.zeros(8, *INFO.image_shape))
    layers = layer_costs(model, width, INFO.num_classes, INFO.image_shape)
    counted = 8 * sum(layer.saved_bytes for layer in layers)
    if model.startswith("vit"):
        assert sum(saved.values()) <= counted <= 2.1 * sum(saved.values())
    else:
        assert counted == pytest.approx(sum(saved.values()), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_every_further_frozen_layer_makes_a_run_cheaper(model: str, width: int) -> None:
    costs = [cost_of(run(model, width, frozen), INFO) for frozen in range(num_layers(model))]
    assert all(a.flops > b.flops for a, b in pairwise(costs))
    assert all(a.memory.optimiser > b.memory.optimiser for a, b in pairwise(costs))


def test_cost_follows_the_recipe() -> None:
    base = cost_of(run(), INFO).flops
    assert cost_of(run(num_steps=50), INFO).flops == base, "ten epochs of five steps"
    assert cost_of(run(num_epochs=20), INFO).flops > 1.9 * base
    rare = cost_of(run(evaluation="log_spaced", num_evaluations=3), INFO).flops
    assert rare < base
    frozen = run(frozen=5)
    live = replace(frozen, recipe=replace(frozen.recipe, augmentation="crop_flip"))
    assert cost_of(live, INFO).flops > cost_of(frozen, INFO).flops, "its prefix runs at every step"
    last, head = (cost_of(run(frozen=k), INFO).memory.images_and_features for k in (8, 9))
    images = (INFO.num_test + 500) * 3 * 32 * 32
    assert last - images == 16 * (head - images), "of a map of 4×4 the head is given the mean"
    adam, plain = cost_of(run(), INFO).memory, cost_of(run(optimizer="sgd"), INFO).memory
    assert adam.optimiser == 2 * plain.optimiser
    assert adam.total > plain.total


@pytest.mark.slow
def test_the_price_of_runs_is_their_sum_and_says_what_was_measured() -> None:
    runs = [run(), run(frozen=5), run("vit_tiny", 12)]
    asked = price(runs, {"made up": INFO})
    assert asked.flops == sum(cost_of(each, INFO).flops for each in runs)
    assert set(asked.rates["cpu"]) == {"resnet18 width 8", "vit_tiny width 12"}
    assert asked.measured == (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",))
    assert asked.seconds.keys() == asked.rates.keys() >= {*asked.measured}
    assert asked.largest == max(
        (cost_of(each, INFO).memory for each in runs), key=lambda memory: memory.total
    )
    assert price([], {}).seconds["cpu"] == 0


def priced(monkeypatch: pytest.MonkeyPatch, *runs: Run) -> cost.Price:
    """The price on a machine without a GPU, whose CPU makes 10 GFLOP/s."""
    monkeypatch.setattr(cost, "measured_rate", lambda *_, **__: 1e10)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return price(runs, {"made up": INFO})


def test_the_features_of_a_start_and_cut_are_paid_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start = run()
    cells = [
        replace(run(frozen=5), start=start, size=size, label_noise=noise)
        for size in (250, 500)
        for noise in (0, 0.2)
    ]
    first = cost_of(cells[2], INFO)
    assert 0 < first.pass_flops < first.flops
    asked = priced(monkeypatch, *cells)
    each = [cost_of(cell, INFO) for cell in cells]
    assert asked.flops == sum(one.flops for one in each)
    assert (
        asked.shared_flops == asked.flops - sum(one.pass_flops for one in each) + first.pass_flops
    )
    assert asked.seconds["cpu"] == asked.shared_flops / 1e10
    assert asked.features_bytes == first.pass_bytes == 700 * 4 * 16 * 16 * 16
    others = [
        replace(cells[2], seed=1),
        replace(cells[2], frozen=6),
        replace(cells[2], start=replace(start, seed=1)),
        replace(cells[2], start=None),
    ]
    for other in others:
        both = priced(monkeypatch, cells[2], other)
        assert both.shared_flops == both.flops, other
    moving = replace(run(frozen=5).recipe, frozen_batchnorm="training")
    assert cost_of(replace(cells[0], recipe=moving), INFO).pass_flops == 0


def test_gpus_are_assumed_by_the_precision_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    low = run(precision="bfloat16", num_epochs=5)
    asked = priced(monkeypatch, run(), low)
    assert asked.measured == ("cpu",)
    for kind, peaks in PEAK_RATES.items():
        hours = [
            cost_of(each, INFO).flops / (ASSUMED_SHARE * peaks[each.recipe.precision])
            for each in (run(), low)
        ]
        assert asked.seconds[kind] == pytest.approx(sum(hours))


def test_a_rate_is_measured_in_the_precision_of_the_recipe() -> None:
    dtypes = []
    low = run(width=2, precision="bfloat16")
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, values: dtypes.append(values.dtype)
    )
    with hook:
        assert cost.measured_rate(low, INFO, device="cpu", seconds=0.01) > 0
    assert dtypes[-1] == torch.bfloat16
    assert len(dtypes) > 2 * len(layer_costs("resnet18", 2, 5, INFO.image_shape))
