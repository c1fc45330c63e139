"""Windows that vote: against the definition window by window, ties, every depth, MONAI, and the steps that follow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segexp.config import check, compose, instantiate
from segexp.errors import ConfigError
from segexp.inference import LargestComponent, LocalMeanField, VotedWindows

GRID = (3, 4)
BACKGROUND, KIDNEY, TUMOUR = range(3)


def ramp(slices: int) -> torch.Tensor:
    """Return an image whose voxels hold the number of their slice, so that a network knows where its window starts."""
    return torch.arange(slices, dtype=torch.float32).expand(1, 1, *GRID, slices).clone()


class Scripted(nn.Module):
    """Says, for a window that starts at a slice, the probabilities that a function gives for it."""

    def __init__(self, probabilities) -> None:
        super().__init__()
        self.probabilities, self.batches = probabilities, []

    def forward(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batches.append(windows)
        found = [self.probabilities(int(window.amin()), window.shape[-1]) for window in windows]
        return {"kidney": torch.stack(found).log()}


def random_probabilities(start: int, depth: int, classes: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 + start)
    return torch.randn(classes, *GRID, depth, generator=generator).softmax(0)


def constant(table: dict[int, list[float]]):
    """Return probabilities that are the same everywhere in a window."""
    return lambda start, depth: torch.tensor(table[start])[:, None, None, None].expand(-1, *GRID, depth)


def starts_by_rule(slices: int, depth: int, stride: int) -> list[int]:
    starts = [0]
    while starts[-1] + depth < slices:
        starts.append(min(starts[-1] + stride, slices - depth))
    return starts


def by_definition(slices: int, depth: int, stride: int, classes: int = 3) -> dict[str, torch.Tensor]:
    """Labels of both votes and the mean probabilities, from windows that are all held at once."""
    votes = torch.zeros(classes, *GRID, max(slices, depth), dtype=torch.float64)
    total, count = torch.zeros_like(votes), torch.zeros(max(slices, depth))
    for start in starts_by_rule(slices, depth, stride):
        part = random_probabilities(start, depth, classes).log().softmax(0).double()
        total[..., start:start + depth] += part
        votes[..., start:start + depth] += nn.functional.one_hot(part.argmax(0), classes).movedim(-1, 0) + 1e-3 * part
        count[start:start + depth] += 1
    assert (count[:slices] > 0).all()
    mean = (total / count)[..., :slices]
    return {"majority": votes[..., :slices].argmax(0), "mean": mean.argmax(0), "means": mean}


@pytest.mark.parametrize("slices", [1, 63, 64, 65, 96, 200])
@pytest.mark.parametrize("vote", ["majority", "mean"])
def test_every_depth(slices, vote):
    network = Scripted(random_probabilities)
    labels = VotedWindows(vote=vote)(network, ramp(slices))["kidney"]
    assert labels.shape == (1, *GRID, slices) and labels.dtype == torch.uint8
    assert torch.equal(labels[0].long(), by_definition(slices, 64, 32)[vote])
    assert all(batch.shape[-1] == 64 for batch in network.batches)


def test_starts():
    windows = VotedWindows()
    assert windows.starts(200) == [0, 32, 64, 96, 128, 136]
    assert [windows.starts(slices) for slices in (1, 64, 65, 96)] == [[0], [0], [0, 1], [0, 32]]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_windows_equal_the_definition(data):
    depth = data.draw(st.integers(1, 9))
    stride = data.draw(st.integers(1, depth))
    slices, classes = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 4))
    vote, batch_size = data.draw(st.sampled_from(["majority", "mean"])), data.draw(st.integers(1, 3))
    network = Scripted(lambda start, size: random_probabilities(start, size, classes))
    seen = []

    def keep(labels, means, image):
        seen.append((labels, means, image))
        return labels

    image = ramp(slices)
    labels = VotedWindows(depth, stride, vote, crf=keep, batch_size=batch_size)(network, image)["kidney"][0]
    expected = by_definition(slices, depth, stride, classes)
    assert torch.equal(labels.long(), expected[vote])
    torch.testing.assert_close(seen[0][1].double(), expected["means"], rtol=1e-5, atol=1e-6)
    assert torch.equal(seen[0][2], image[0, 0])
    assert torch.equal(VotedWindows(depth, stride, vote)(network, image)["kidney"][0], labels)
    assert all(len(batch) <= batch_size for batch in network.batches)


def test_a_tie_goes_to_the_greater_sum_of_probabilities():
    # Slices 2 and 3 have one vote for each: the kidney's is the surer one.
    network = Scripted(constant({0: [0.55, 0.4, 0.05], 2: [0.1, 0.85, 0.05]}))
    labels = VotedWindows(depth=4, stride=2)(network, ramp(6))["kidney"][0, 0, 0]
    assert labels.tolist() == [BACKGROUND] * 2 + [KIDNEY] * 4
    network = Scripted(constant({0: [0.85, 0.1, 0.05], 2: [0.35, 0.55, 0.1]}))
    labels = VotedWindows(depth=4, stride=2)(network, ramp(6))["kidney"][0, 0, 0]
    assert labels.tolist() == [BACKGROUND] * 4 + [KIDNEY] * 2


def test_a_tie_is_decided_among_the_tied_only():
    # Nobody's first choice is the tumour, though its sum is the greatest.
    network = Scripted(constant({0: [0.5, 0.02, 0.48], 2: [0.02, 0.51, 0.47]}))
    tied = {vote: VotedWindows(depth=4, stride=2, vote=vote)(network, ramp(6))["kidney"][0, 0, 0, 2].item()
            for vote in ("majority", "mean")}
    assert tied == {"majority": KIDNEY, "mean": TUMOUR}


def test_two_of_three_win_against_a_surer_one():
    table = {0: [0.45, 0.55, 0.0], 1: [0.45, 0.55, 0.0], 2: [1.0, 0.0, 0.0]}
    middle = {vote: VotedWindows(depth=3, stride=1, vote=vote)(Scripted(constant(table)), ramp(5))["kidney"][0, 0, 0, 2]
              for vote in ("majority", "mean")}
    assert middle == {"majority": KIDNEY, "mean": BACKGROUND}


def test_a_difference_that_a_weighted_sum_would_lose():
    # 1e-3 times this difference is less than what a float near 1 can tell apart.
    table = {0: [0.6, 0.4 - 1e-5, 1e-5], 2: [0.4 - 2e-5, 0.6, 2e-5]}
    labels = VotedWindows(depth=4, stride=2)(Scripted(constant(table)), ramp(6))["kidney"][0, 0, 0]
    assert labels.tolist() == [BACKGROUND] * 2 + [KIDNEY] * 4


def test_short_volumes_are_padded_with_their_minimum():
    image = ramp(5) - 3.5
    network = Scripted(lambda start, depth: random_probabilities(0, depth))
    VotedWindows(depth=8, stride=4)(network, image)
    window, = network.batches
    assert torch.equal(window[..., :5], image)
    assert (window[..., 5:] == -3.5).all()


def test_several_targets_and_more_classes_than_a_byte_holds():
    class Two(nn.Module):
        def forward(self, windows):
            start, depth = int(windows.amin()), windows.shape[-1]
            return {"few": random_probabilities(start, depth)[None].log(),
                    "many": random_probabilities(start, depth, 300)[None].log()}

    labels = VotedWindows(depth=4, stride=2)(Two(), ramp(9))
    assert labels["few"].dtype == torch.uint8 and labels["many"].dtype == torch.int16
    assert torch.equal(labels["few"][0].long(), by_definition(9, 4, 2)["majority"])
    assert torch.equal(labels["many"][0].long(), by_definition(9, 4, 2, 300)["majority"])


def test_equals_monai_except_at_ties():
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    layer = nn.Conv3d(1, 3, (3, 3, 9), padding=(1, 1, 4))
    image = torch.randn(1, 1, 12, 10, 200)

    def hot(window):
        return nn.functional.one_hot(layer(window).argmax(1), 3).movedim(-1, 1).float()

    with torch.no_grad():
        share = sliding_window_inference(image, (12, 10, 64), 1, hot, overlap=(0, 0, 0.5), mode="constant")
        labels = VotedWindows()(lambda window: {"kidney": layer(window)}, image)["kidney"]
    top = share.sort(1, descending=True).values
    tied = top[:, 0] - top[:, 1] < 1e-3
    assert torch.equal(labels[~tied].long(), share.argmax(1)[~tied])
    assert 0 < tied.sum() < 0.05 * tied.numel()
    assert (labels[tied] != share.argmax(1)[tied]).any()  # MONAI gives every tie to the first class


def test_the_field_comes_before_the_component():
    order = []

    def crf(labels, means, image):
        order.append("crf")
        return labels

    def components(labels):
        order.append("components")
        return labels + 1

    network = Scripted(constant({0: [0.2, 0.7, 0.1]}))
    labels = VotedWindows(depth=4, stride=2, crf=crf, components=components)(network, ramp(4))["kidney"]
    assert order == ["crf", "components"] and (labels == KIDNEY + 1).all()


def test_all_steps_clean_a_noisy_kidney():
    axes = torch.meshgrid(*(torch.arange(size) for size in (40, 40, 96)), indexing="ij")
    squared = [(axis - centre) ** 2 for axis, centre in zip(axes, (20, 20, 48), strict=True)]
    truth = (squared[0] / 100 + squared[1] / 100 + squared[2] / 900 < 1).long()
    generator = torch.Generator().manual_seed(0)
    image = truth.float() * 0.4 + 0.02 * torch.randn(truth.shape, generator=generator)
    flipped = torch.where(torch.rand(truth.shape, generator=generator) < 0.04, 1 - truth, truth)
    # The network sees the flips as a second channel and believes them.
    seen = torch.stack([image, flipped.float()])[None]

    def network(window):
        score = 2 * window[:, 1:] - 1
        return {"kidney": torch.cat([-score, score], 1)}

    wrong = {}
    for name, steps in {"vote": {}, "component": {"components": LargestComponent()},
                        "both": {"crf": LocalMeanField(), "components": LargestComponent()}}.items():
        labels = VotedWindows(**steps)(network, seen)["kidney"][0]
        wrong[name] = int((labels != truth).sum())
    assert wrong["vote"] == (flipped != truth).sum()
    assert wrong["component"] < 0.6 * wrong["vote"]  # the flips outside the kidney
    assert wrong["both"] < 0.1 * wrong["component"]  # the holes inside it


@pytest.mark.parametrize(("settings", "message"), [
    ({"vote": "median"}, r"inference\.vote=median: expected majority or mean"),
    ({"depth": 0}, r"inference\.depth=0: expected at least 1 slice"),
    ({"stride": 0}, r"inference\.stride=0: expected 1 to 64"),
    ({"depth": 16, "stride": 17}, r"inference\.stride=17: expected 1 to 16"),
])
def test_wrong_settings_name_the_key(settings, message):
    with pytest.raises(ConfigError, match=message):
        VotedWindows(**settings)


@pytest.mark.parametrize("vote", ["majority", "mean"])
@pytest.mark.parametrize(("crf", "made"), [("local", LocalMeanField), ("none", type(None))])
@pytest.mark.parametrize(("components", "keep"), [("largest", "largest"), ("touching_kidney", "touching_kidney"),
                                                  ("none", None)])
def test_every_step_is_a_group(vote, crf, made, components, keep):
    words = ["inference=voted_windows", f"inference/vote={vote}", f"inference/crf={crf}",
             f"inference/components={components}"]
    cfg = compose("train", words)
    assert check(cfg) == []
    inference = instantiate(cfg.inference)
    assert (inference.depth, inference.stride, inference.vote) == (64, 32, vote)
    assert type(inference.crf) is made
    assert getattr(inference.components, "keep", None) == keep


def test_the_dense_field_composes_without_its_extra():
    cfg = compose("train", ["inference=voted_windows", "inference/crf=dense", "inference.crf.iterations=3"])
    assert check(cfg) == []
    assert cfg.inference.crf.iterations == 3
