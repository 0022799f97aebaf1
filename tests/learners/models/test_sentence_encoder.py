"""Sentence embeddings: the mean of a text's own tokens, whatever is beside it in its batch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from hanse.errors import UserError
from hanse.learners.models import sentence_encoder
from hanse.learners.models.sentence_encoder import embeddings

TEXTS = [f"{'a film and its music ' * (number % 7)}{number}" for number in range(80)]


@pytest.fixture
def tiny_bert(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a random BERT, and an empty cache."""
    monkeypatch.setenv("HANSE_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "bert"))
    (folder / "model.safetensors").unlink()
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 512}
    torch.manual_seed(0)
    BertModel(BertConfig(intermediate_size=32, initializer_range=0.5, **shape)).save_pretrained(
        folder
    )
    return folder


def test_a_vector_is_the_normalised_mean_of_the_last_states(tiny_bert: Path) -> None:
    found = embeddings(str(tiny_bert), TEXTS)
    model = BertModel.from_pretrained(tiny_bert).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, mean / mean.norm(), atol=1e-5)
    assert found.dtype == np.float32 and found.shape == (80, 16)


def test_equal_texts_have_equal_vectors_in_any_order(tiny_bert: Path) -> None:
    found = embeddings(str(tiny_bert), TEXTS)
    again = embeddings(str(tiny_bert), [*reversed(TEXTS), TEXTS[3], TEXTS[3]])
    assert (again[:80] == found[::-1]).all()
    assert (again[80:] == found[3]).all()


def test_only_the_beginning_of_a_long_text_is_read(tiny_bert: Path) -> None:
    long = "film " * 400
    first, second = embeddings(str(tiny_bert), [long, long + "awful"])
    assert (first == second).all()


def test_vectors_are_computed_once(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = embeddings(str(tiny_bert), TEXTS)
    with monkeypatch.context() as patch:
        patch.delattr(sentence_encoder, "_encoded")
        assert (embeddings(str(tiny_bert), TEXTS) == found).all()
        with pytest.raises(NameError):
            embeddings(str(tiny_bert), TEXTS[1:])  # another set of texts
    [file] = (tiny_bert.parent / "cache" / "vectors").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert (embeddings(str(tiny_bert), TEXTS) == found).all(), "a damaged file is made anew"


def test_another_model_gives_other_vectors(tiny_bert: Path) -> None:
    found = embeddings(str(tiny_bert), TEXTS)
    model = BertModel.from_pretrained(tiny_bert)
    model.embeddings.word_embeddings.weight.data *= 2
    model.save_pretrained(tiny_bert)
    assert not np.allclose(embeddings(str(tiny_bert), TEXTS), found, atol=1e-3)


def test_what_is_no_encoder(tiny_llama: Path, tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="a LlamaForCausalLM, which is no sentence encoder; choose"):
        embeddings(str(tiny_llama), ["x"])
    with pytest.raises(UserError, match=r"no model 'minilm-l7' \(did you mean 'minilm-l6'\?\)"):
        embeddings("minilm-l7", ["x"])
    config = json.loads((tiny_bert / "config.json").read_text())
    (tiny_bert / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lack encoder\.layer\.2\..*does not hold the whole model"):
        embeddings(str(tiny_bert), ["x"])
