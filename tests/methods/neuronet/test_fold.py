"""The folded decoders are the plain ones: outputs, loss, gradients and running statistics."""

import copy

import pytest
import torch

from segexp.losses import CrossEntropy
from segexp.methods.neuronet import NeuroNet

CLASSES = {"fsl_fast": 4, "fsl_first": 16, "spm_tissue": 4, "malp_em": 23, "malp_em_tissue": 6}
SUBSETS = [["fsl_fast"], ["malp_em"], ["fsl_fast", "spm_tissue", "malp_em_tissue"], list(CLASSES)]


def pair(targets, variant):
    """Return the same network with folded and with plain decoders, in float64; no parameter has its first value."""
    torch.manual_seed(len(targets))
    plain = NeuroNet({target: CLASSES[target] for target in targets}, variant, filters=(4, 6, 8, 10),
                     bn_momentum=0.3, decoder="plain").double()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    folded = copy.deepcopy(plain)
    folded.decoder = "folded"
    return folded, plain


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("targets", SUBSETS, ids=lambda targets: f"{len(targets)}_{targets[0]}")
@pytest.mark.parametrize("batch", [1, 3])
def test_folded_equals_plain(targets, variant, training, batch):
    folded, plain = (network.train(training) for network in pair(targets, variant))
    image = torch.randn(batch, 1, 16, 24, 8, dtype=torch.float64) + 0.5
    labels = {target: torch.randint(CLASSES[target], (batch, 16, 24, 8)) for target in targets}
    results = []
    for network in (folded, plain):
        outputs = network(image)
        loss = CrossEntropy()(outputs, {"target": labels})["loss"]
        loss.backward()
        results.append((outputs, loss))
    (ours, our_loss), (theirs, their_loss) = results
    for target in targets:
        assert (ours[target].dense() - theirs[target]).abs().max() < 1e-5
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-6, atol=0)
    for (name, one), other in zip(folded.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None, name
        assert (one.grad - other.grad).norm() <= 1e-5 * other.grad.norm() + 1e-9, name
    for (name, one), other in zip(folded.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9, msg=name)


def test_single_precision():
    folded, plain = (network.float().eval() for network in pair(list(CLASSES), "code"))
    image = torch.randn(1, 1, 24, 16, 16)
    with torch.no_grad():
        ours, theirs = folded(image), plain(image)
    for target in CLASSES:
        assert (ours[target].dense() - theirs[target]).abs().max() < 1e-5


def test_mixed_precision_stays_near():
    folded, _ = pair(["fsl_fast", "malp_em"], "code")
    folded = folded.float().train()
    image, labels = torch.randn(2, 1, 16, 16, 16), torch.randint(4, (2, 16, 16, 16))
    batch = {"target": {"fsl_fast": labels, "malp_em": labels}}
    exact = CrossEntropy()(folded(image), batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = CrossEntropy()(folded(image), batch)["loss"]
    mixed.backward()
    assert mixed.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(torch.isfinite(parameter.grad).all() for parameter in folded.parameters())


def test_saved_with_one_decoder_loads_with_the_other():
    folded, plain = pair(["fsl_fast"], "code")
    fresh = NeuroNet({"fsl_fast": 4}, filters=(4, 6, 8, 10))
    fresh.load_state_dict(plain.state_dict())
    assert list(folded.state_dict()) == list(plain.state_dict())
