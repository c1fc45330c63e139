"""VGG19's front: torchvision's function, and weights that are what they should be or a message."""

import hashlib
import socket

import pytest
import torch

from segexp.cli import main
from segexp.errors import ConfigError, DataError
from segexp.methods.siamese import Vgg19Front
from segexp.methods.siamese.vgg import KEYS, draw, fingerprint


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No connection can be made, and torchvision's cache is empty."""

    def refuse(*args, **kwargs):
        raise OSError("no connection in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def write_weights(folder, name="vgg19.pth", seed=5, drop=(), **changed):
    """Write a state dict like torchvision's, with more than the front; return the file and its SHA-256."""
    content = {**draw(seed), "features.10.weight": torch.zeros(256, 128, 3, 3), "classifier.6.bias": torch.zeros(1000)}
    content = {key: value for key, value in {**content, **changed}.items() if key not in drop}
    file = folder / name
    torch.save(content, file)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


def test_features_and_gradients_are_torchvisions():
    from torchvision.models.vgg import make_layers

    front = Vgg19Front("random", seed=3)
    front.load()
    theirs = make_layers([64, 64, "M", 128, 128, "M"])
    theirs.load_state_dict({key.removeprefix("features."): value for key, value in front.state_dict().items()})
    for layer in theirs:
        layer.inplace = False
    images = torch.randn(2, 3, 21, 18)
    ours, reference = images.clone().requires_grad_(), images.clone().requires_grad_()
    features = front(ours)
    expected = [theirs[:5](reference), theirs(reference)]
    for one, other in zip(features, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(one.square().sum() for one in features).backward()
    sum(one.square().sum() for one in expected).backward()
    torch.testing.assert_close(ours.grad, reference.grad)


def test_shapes_parameters_and_receptive_fields():
    front = Vgg19Front("random")
    assert sum(parameter.numel() for parameter in front.parameters()) == 260_160
    images = torch.randn(1, 3, 224, 224, requires_grad=True)
    features = front(images)
    assert [tuple(one.shape[1:]) for one in features] == [(64, 112, 112), (128, 56, 56)]
    for one, size in zip(features, (6, 16), strict=True):
        middle = one.shape[-1] // 2
        (gradient,) = torch.autograd.grad(one[0, :, middle, middle].sum(), images, retain_graph=True)
        rows, columns = gradient[0].any(0).nonzero(as_tuple=True)
        assert (rows.max() - rows.min() + 1).item() <= size >= (columns.max() - columns.min() + 1).item()
        assert rows.max() - rows.min() + 1 > size - 2


def test_random_weights_are_torchvisions_initialisation_and_the_seeds():
    one, same, other = (Vgg19Front("random", seed=seed) for seed in (1, 1, 2))
    before = torch.random.get_rng_state()
    for front in (one, same, other):
        front.load()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.record == same.record != other.record
    assert one.record["weights"] == "random" and one.record["seed"] == 1
    weight = one.features["7"].weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02) and not one.features["7"].bias.any()


@pytest.mark.parametrize("name", ["whole", "cut"])
def test_a_file_whole_or_cut_down_gives_the_same_weights(offline, name):
    file, digest = write_weights(offline)
    if name == "cut":
        assert main(["vgg", "extract", str(file), f"output={offline}/weights", f"sha256={digest[:10]}"]) == 0
        (file,) = (offline / "weights").iterdir()
        assert file.stat().st_size < 1.1e6
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert file.name == f"vgg19_front-{digest[:8]}.pth"
        front = Vgg19Front("file", file)  # the digits are in the name
    else:
        front = Vgg19Front("file", file, digest)
    assert front.record == {} and not front.ready
    front.load()
    expected = draw(5)
    assert all(torch.equal(value, expected[key]) for key, value in front.state_dict().items())
    assert list(front.state_dict()) == list(KEYS)
    assert front.record == {"weights": "file", "sha256": fingerprint(expected), "file": file.name,
                            "file_sha256": digest}


def test_half_precision_files_are_read(tmp_path):
    content = {key: value.half() for key, value in draw(0).items()}
    torch.save(content, tmp_path / "half.pth")
    front = Vgg19Front("file", tmp_path / "half.pth", hashlib.sha256((tmp_path / "half.pth").read_bytes()).hexdigest())
    front.load()
    assert front.features["0"].weight.dtype == torch.float32


def test_a_missing_file_names_what_to_do(offline):
    with pytest.raises(ConfigError) as raised:
        Vgg19Front("file", offline / "vgg19-dcbb9e9d.pth").load()
    for words in (str(offline / "vgg19-dcbb9e9d.pth"), "does not exist", "segexp vgg extract", "loss.weights=random",
                  "loss.weights_file=FILE"):
        assert words in str(raised.value)


def test_torchvisions_weights_without_a_network_name_what_to_do(offline):
    front = Vgg19Front("torchvision")
    with pytest.raises(ConfigError) as raised:
        front(torch.zeros(1, 3, 8, 8))  # never silently something else
    for words in (str(offline / "torch/hub/checkpoints/vgg19-dcbb9e9d.pth"), "could not be downloaded", "no connection",
                  "loss.weights=random"):
        assert words in str(raised.value)
    assert not front.ready and front.record == {}
    assert not list(offline.rglob("*.pth*"))


def test_torchvisions_cache_is_checked_too(offline):
    folder = offline / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    write_weights(folder, "vgg19-dcbb9e9d.pth")
    with pytest.raises(DataError, match=r"vgg19-dcbb9e9d.pth: its SHA-256 is [0-9a-f]{64}, expected dcbb9e9d\.\.\."):
        Vgg19Front("torchvision").load()


def test_a_truncated_file_is_noticed_before_it_is_read(tmp_path):
    file, digest = write_weights(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"its SHA-256 is [0-9a-f]{{64}}, expected {digest}: it is truncated"):
        Vgg19Front("file", file, digest).load()


def test_a_hash_is_never_skipped(tmp_path):
    file, digest = write_weights(tmp_path)
    with pytest.raises(ConfigError, match=f"nothing says which hash.*{digest}"):
        Vgg19Front("file", file).load()


@pytest.mark.parametrize(("changes", "message"), [
    ({"drop": ("features.5.bias",)}, "has no tensor 'features.5.bias'"),
    ({"features.2.weight": torch.zeros(64, 64, 1, 1)},
     r"features.2.weight has the shape \(64, 64, 1, 1\), expected \(64, 64, 3, 3\)"),
])
def test_other_tensors_are_refused(tmp_path, changes, message):
    file, digest = write_weights(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        Vgg19Front("file", file, digest).load()


def test_code_in_a_file_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    file = tmp_path / "evil.pth"
    torch.save({"features.0.weight": Evil()}, file)
    with pytest.raises(DataError, match="cannot be read as weights"):
        Vgg19Front("file", file, hashlib.sha256(file.read_bytes()).hexdigest()).load()
    assert not (tmp_path / "ran").exists()


def test_weights_of_a_checkpoint_need_no_file(offline):
    trained = Vgg19Front("random", seed=9)
    trained.load()
    restored = Vgg19Front("file", offline / "gone.pth", "0" * 64)
    restored.load_state_dict(trained.state_dict())
    images = torch.randn(1, 3, 8, 8)
    assert all(torch.equal(one, other) for one, other in zip(restored(images), trained(images), strict=True))


@pytest.mark.parametrize(("settings", "message"), [
    ({"weights": "imagenet"}, "loss.weights=imagenet: expected one of file, torchvision, random"),
    ({"weights": "file"}, "needs loss.weights_file"),
    ({"sha256": "xyz"}, "loss.weights_sha256=xyz"),
    ({"sha256": 12345678}, "in quotes"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        Vgg19Front(**settings)


@pytest.mark.parametrize(("words", "message"), [
    ([], "there is no such action"), (["extrakt"], "did you mean extract"), (["extract", "a", "b"], "takes one FILE"),
    (["extract", "outpt=x"], "did you mean output"), (["extract", "nowhere.pth"], "nowhere.pth does not exist"),
])
def test_typos_of_the_verb(words, message, capsys):
    assert main(["vgg", *words]) == 2
    assert message in capsys.readouterr().err
