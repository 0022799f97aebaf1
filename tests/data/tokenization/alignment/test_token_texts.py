"""Tokens of byte-level BPE, SentencePiece and WordPiece that mean one text have one text."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hanse.data.tokenization.alignment.token_texts import of_tokenizer, of_tokens

TEXTS = ["the crème brûlée ☃ 中 😀", "\x00\x7f\xa0\xad\u0120 the"]


def _byte_level(vocabulary: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=["<end>"]
    )
    tokenizer.train_from_iterator([*TEXTS, "the ending", "the end of the <end>"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def test_words_begin_with_a_space_in_every_vocabulary() -> None:
    byte_level = of_tokens(["Ġthe", "Ġutil", "ize", "Ġ", "ĊĊ", "#"])
    sentence_piece = of_tokens(["▁the", "▁util", "ize", "▁", "<0x0A>", "#"])
    word_piece = of_tokens(["the", "util", "##ize", "##ing", "#"])
    assert byte_level.texts == (" the", " util", "ize", " ", "\n\n", "#")
    assert sentence_piece.texts == (" the", " util", "ize", " ", "\n", "#")
    assert word_piece.texts == (" the", " util", "ize", "ing", "#")
    assert of_tokens(["the", "a#", ""]).texts == ("the", "a#", "")
    assert byte_level.unspaced[:4] == ("the", "util", "ize", "")


def test_parts_of_characters_are_bytes_in_both_kinds() -> None:
    byte_level = of_tokens(["Ġ", "Ã", "¤", "Ã¤"])
    sentence_piece = of_tokens(["▁", "<0xC3>", "<0xA4>", "ä"])
    assert byte_level.texts == sentence_piece.texts == (" ", "\udcc3", "\udca4", "ä")


def test_a_byte_that_is_also_a_letter_keeps_its_name() -> None:
    assert of_tokens(["<0x41>", "<0x20>", "▁", "A"]).texts == ("<0x41>", "<0x20>", " ", "A")


def test_texts_of_tokens_make_up_the_text_again() -> None:
    tokenizer = _byte_level(300)
    vocabulary = of_tokenizer(tokenizer)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        written = "".join(vocabulary.texts[token] for token in ids)
        assert written.encode(errors="surrogateescape").decode() == text


def test_special_tokens_are_named_by_their_role() -> None:
    tokenizer = _byte_level(300)
    tokenizer.add_tokens(["Ġpatient"])
    vocabulary = of_tokenizer(tokenizer)
    assert vocabulary.texts[tokenizer.eos_token_id] == "<eos>"
    assert vocabulary.texts[-1] == "Ġpatient", "it is written as it is"
    assert vocabulary.special == {tokenizer.eos_token_id}
    assert len(vocabulary) == len(tokenizer)


def test_a_token_with_several_roles_has_the_first_one() -> None:
    tokenizer = _byte_level(300)
    tokenizer.bos_token = tokenizer.pad_token = "<end>"
    assert of_tokenizer(tokenizer).texts[tokenizer.eos_token_id] == "<eos>"


def test_digests_differ_with_texts_and_special_tokens() -> None:
    vocabularies = [
        of_tokens(["ab", "c"]),
        of_tokens(["a", "bc"]),
        of_tokens(["ab", "c"], special=[0]),
        of_tokens(["ab", "c"], roles={"eos": 0}),
    ]
    assert len({one.digest for one in vocabularies}) == 4
    assert of_tokens(["ab", "c"]).digest == vocabularies[0].digest
