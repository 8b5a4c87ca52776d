"""timm's networks by name: errors, and pretrained weights under the layers' names."""

from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import load_file, save_file

from study.launching.train_run import execute
from study.networks import families
from study.networks.build import build, normalisation, pretrained
from study.networks.catalogue import (
    check_images,
    check_model,
    layer_names,
    num_layers,
    standard_width,
)
from study.networks.families import layers_of
from study.networks.initial_values import initialise
from study.run import Recipe, Run
from study.store import read_head, read_rows, read_weights
from study.tasks import Digits, Task
from tests.image_files import prepare_quietly

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", ["no such network", "resnet18"]),
        ("resnet18.nope", ["'nope'", "a1_in1k"]),
        ("resnetv2_50", ["ResNetV2", "exactly one of ResNet, DenseNet, VisionTransformer"]),
        ("resnet51q", ["ByobNet"]),
        ("eva02_tiny_patch14_224", ["Eva"]),
        ("deit_tiny_distilled_patch16_224", ["VisionTransformerDistilled"]),
        ("hf-hub:timm/resnet18", ["no such network"]),
    ],
)
def test_check_model_timm_name_of_another_class_is_an_error(name, words):
    with pytest.raises(ValueError) as caught:
        check_model(f"timm/{name}", None)
    assert all(word in str(caught.value) for word in words), caught.value


def test_check_images_of_timm_networks_names_the_size_needed():
    check_model("timm/test_vit", None)
    assert num_layers("timm/test_vit") == 8
    assert standard_width("timm/test_vit") is None
    check_images("timm/test_vit", (3, 160, 160))
    with pytest.raises(ValueError, match="image_size=160"):
        check_images("timm/test_vit", (3, 32, 32))
    check_images("timm/test_resnet", (3, 32, 32))
    with pytest.raises(ValueError, match="32×32"):
        check_images("timm/test_resnet", (3, 16, 16))
    assert normalisation("timm/test_vit") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation("timm/resnet18") == normalisation("resnet18")


def save_weights(folder, name):
    """Save the weights of a timm network as after a training; return the file and the network."""
    torch.manual_seed(6)
    whole = timm.create_model(name).eval()
    families.as_after_training(whole)
    path = folder / f"{name}.safetensors"
    save_file(whole.state_dict(), path)
    return path, whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("test_resnet", 64), ("densenet121", 64), ("test_vit", 160)]
)
def test_pretrained_weights_give_the_logits_of_timm(tmp_path, name, size):
    path, whole = save_weights(tmp_path, name)
    state = torch.get_rng_state()
    loaded = pretrained(f"timm/{name}", (3, size, size), path)
    assert torch.equal(torch.get_rng_state(), state)
    layers = build(f"timm/{name}", None, 7, (3, size, size)).eval()
    initialise(layers, f"timm/{name}", 0)
    head = {f"head.{key}" for key in layers[-1].state_dict()}
    assert layers.state_dict().keys() - loaded.keys() == head
    layers[:-1].load_state_dict(loaded, strict=True)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        # The original network's own head upon our layers gives the original's logits.
        assert torch.equal(layers_of(whole)[-1](layers[:-1](images)), whole(images))
        assert layers(images).shape == (2, 7)


def test_pretrained_weights_that_do_not_fit_are_named(tmp_path):
    path, _ = save_weights(tmp_path, "test_resnet")
    tensors = load_file(path)
    tensors["layer1.0.extra"] = tensors.pop("layer1.0.conv1.weight")
    save_file(tensors, path)
    expected = r"(?s)layer1.0.conv1.weight.*layer1.0.extra|layer1.0.extra.*layer1.0.conv1.weight"
    for model, file, message in (
        ("timm/test_resnet", path, expected),
        ("timm/test_resnet", path.with_name("absent.safetensors"), "there is no file"),
        ("resnet18", None, "start='pretrained'"),
        ("timm/densenet264d", None, "start='pretrained'"),
    ):
        with pytest.raises(ValueError, match=message):
            pretrained(model, (3, 64, 64), file)


def test_run_from_pretrained_weights_freezes_them_and_has_a_new_head(tmp_path, store, monkeypatch):
    path, _ = save_weights(tmp_path, "test_resnet")
    monkeypatch.setattr("study.launching.worker_cache.pretrained", partial(pretrained, path=path))
    prepare_quietly(Task(name="digits-32", images=Digits(), image_size=32), store, None)
    run = Run(
        task="digits-32",
        size=60,
        model="timm/test_resnet",
        start="pretrained",
        frozen=2,
        recipe=Recipe(num_epochs=1, batch_size=30, learning_rate=1e-3),
        seed=0,
    )
    assert execute(run, store, keep_weights=True) == "finished"
    made_by = read_head(store, run.id).provenance
    after = tensors_of(read_weights(store, run.id, made_by.weights_digest))
    before = pretrained("timm/test_resnet", (3, 32, 32), path)
    frozen = layer_names("timm/test_resnet")[:2]
    for key, tensor in before.items():
        if key.partition(".")[0] in frozen:
            assert torch.equal(after[key], tensor), key
        elif tensor.ndim > 1:
            assert not torch.equal(after[key], tensor), key
    assert after["head.classifier.weight"].shape[0] == 10
    table = read_rows(store, run.id).table
    assert set(table["start"].to_pylist()) == {"pretrained"}
    assert made_by.start_digest is not None
