"""Bypass dropout: outputs miss a share of what the controller emits, and nothing of what is read."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import assert_close
from tests.nn.helpers import HIDDEN, INPUTS, make_dnc, random

BATCH = 3


@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_miss_a_share_of_h_and_nothing_of_the_words(layers):
    plain = make_dnc(output_size=None, num_layers=layers)
    dropping = make_dnc(output_size=None, num_layers=layers, bypass_dropout=0.25)
    inputs, width = random(50, BATCH, INPUTS), HIDDEN * layers
    expected, state = plain(inputs)
    features, same = dropping(inputs)
    assert_close(same, state)
    assert_close(features[..., width:], expected[..., width:])
    missed = features[..., :width] == 0
    assert_close(features[..., :width][~missed], expected[..., :width][~missed] / 0.75)
    assert 0.2 < missed.double().mean() < 0.3


def test_an_output_layer_sees_it_and_evaluation_does_not():
    plain, dropping = make_dnc(), make_dnc(bypass_dropout=0.5)
    inputs = random(5, BATCH, INPUTS)
    expected = plain(inputs)[0]
    assert not torch.allclose(dropping(inputs)[0], expected)
    assert not torch.allclose(dropping.step(inputs[0])[0], expected[0])
    dropping.eval()
    assert_close(dropping(inputs)[0], expected)
    assert_close(dropping.step(inputs[0])[0], expected[0])


@pytest.mark.parametrize(
    ("share", "kind"), [(1.0, ValueError), (-0.1, ValueError), ("a", TypeError), (True, TypeError)]
)
def test_a_share_is_checked(share, kind):
    with pytest.raises(kind, match=r"bypass_dropout must be"):
        make_dnc(bypass_dropout=share)
