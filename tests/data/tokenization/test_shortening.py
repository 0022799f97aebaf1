"""A conversation that is too long keeps its latest turns whole, whatever the template."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hanse.data.example import IGNORED, Example, Lost
from hanse.data.formats.row import Row, row
from hanse.data.tokenization.render import render
from hanse.data.tokenization.shortening import most
from hanse.errors import UserError

SMOLLM2 = (  # its first token is the one that begins every turn; it adds a system turn
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|head|>' + m['role'] + '<|body|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|body|>\n\n' }}{% endif %}"
)
MISTRAL = (  # the system turn stands in the first user turn, and roles must alternate
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] "
    "+ '\n\n' %}{% set rest = messages[1:] %}{% else %}{% set first = '' %}"
    "{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + (first if loop.first else '') + m['content'] "
    "+ ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (  # there is no system turn
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}{% for m in messages %}{{ '<turn>' + ('model' if m['role'] == "
    "'assistant' else m['role']) + '\n' + m['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
TEMPLATES = {  # first and last special token of a text, whether there are system turns
    "smollm2": (SMOLLM2, "<|im_start|>", "<|im_end|>", True),
    "llama": (LLAMA, "<s>", "<|eot|>", True),
    "mistral": (MISTRAL, "<s>", "</s>", True),
    "gemma": (GEMMA, "<s>", "<end>", False),
    "none": (None, "<s>", "</s>", True),
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|eot|>", "<|head|>", "<|body|>"]
SPECIAL += ["<turn>", "<end>"]
TURNS = ("first thing", "one", "and the second?", "two", "then a third one", "three", "last", "4!")


def _tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Every byte is a token, and so is every special one."""
    template, bos, eos, _ = TEMPLATES[name]
    alphabet = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    others = [token for token in SPECIAL if token not in (bos, eos)]
    settings: dict[str, Any] = {"bos_token": bos, "eos_token": eos, "chat_template": template}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=others, **settings
    )


@pytest.fixture(params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    found = _tokenizer(request.param)
    found.system = TEMPLATES[request.param][3]
    return found


def _messages(turns: tuple[str, ...], system: str = "") -> list[dict[str, str]]:
    said = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(turns)]
    return [{"role": "system", "content": system}] * bool(system) + said


def _written(tokenizer: Any, messages: list[dict[str, str]], ask: bool = False) -> str:
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        return str(text)
    end = {"assistant": "</s>"}
    lines = [f"{m['role']}: {m['content']}{end.get(m['role'], '')}\n" for m in messages]
    return "".join(lines) + "assistant:" * ask


def _size(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _learned(example: Example, tokenizer: Any) -> list[str]:
    """The runs of tokens that are learned, as text."""
    runs, open_ = [], False
    for token, label in zip(example.ids, example.labels, strict=True):
        assert label in (token, IGNORED)
        if label != IGNORED:
            runs[-1:] = [runs[-1] + [token]] if open_ else [*runs[-1:], [token]]
        open_ = label != IGNORED
    return [tokenizer.decode(run) for run in runs]


def _example(
    messages: list[dict[str, str]], tokenizer: Any, room: int, example_kind: str
) -> Example:
    return render(
        [row({"messages": messages}, "f:1")], tokenizer, example_kind, {}, "{text}", room
    )[0]


@pytest.mark.parametrize("system", ["", "Speak as the sea."])
def test_the_most_turns_that_fit_are_kept(tokenizer: Any, system: str) -> None:
    system = system if tokenizer.system else ""
    suffixes = [_messages(TURNS[start:], system) for start in range(0, len(TURNS), 2)]
    texts = [_written(tokenizer, messages) for messages in suffixes]
    sizes = [_size(tokenizer, text) for text in texts]
    for room in range(sizes[-1], sizes[0] + 3):
        example = _example(suffixes[0], tokenizer, room, "tokens")
        start = next(at for at, size in enumerate(sizes) if size <= room)  # the most that fit
        assert tokenizer.decode(example.ids) == texts[start]
        said = [run.removesuffix(tokenizer.eos_token) for run in _learned(example, tokenizer)]
        assert [run.strip() for run in said] == list(TURNS[2 * start + 1 :: 2])
        assert example.lost == (Lost.TURNS if start else Lost.NOTHING)
        assert example.missing == sizes[0] - sizes[start]
        assert example.answer == "4!"


@pytest.mark.parametrize("system", ["", "Speak as the sea."])
def test_a_last_exchange_that_does_not_fit_is_cut_inside(tokenizer: Any, system: str) -> None:
    system = system if tokenizer.system else ""
    question, answer = "abcdefghijklmnopqrstuvwxyz", "0123456789" * 3

    def messages(kept: int, spoken: int) -> list[dict[str, str]]:
        found = _messages((question[len(question) - kept :], answer), system)
        return [{**m, "content": system[:spoken]} if m["role"] == "system" else m for m in found]

    def asked(kept: int, spoken: int) -> int:
        return _size(tokenizer, _written(tokenizer, messages(kept, spoken)[:-1], ask=True))

    said, told = len(question), len(system)
    whole = _size(tokenizer, _written(tokenizer, messages(said, told)))
    tail = whole - asked(said, told)
    for room in range(asked(0, 0) + 2, whole):
        example = _example(_messages((*TURNS, question, answer), system), tokenizer, room, "tokens")
        space = max(room - tail, room // 2)
        kept = max((n for n in range(said + 1) if asked(n, told) <= space), default=0)
        spoken = max((n for n in range(told + 1) if asked(kept, n) <= space), default=0)
        text = _written(tokenizer, messages(kept, spoken))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:room]
        assert tokenizer.decode(example.ids) == tokenizer.decode(ids)
        lost = {part: part in example.lost for part in (Lost.TURNS, Lost.PROMPT, Lost.SYSTEM)}
        assert lost == {
            Lost.TURNS: True, Lost.PROMPT: kept < said, Lost.SYSTEM: spoken < told
        }  # fmt: skip
        [learned] = _learned(example, tokenizer)
        wanted = f"{answer}{tokenizer.eos_token}"
        assert wanted.startswith(learned.strip()) and learned.strip()
        assert (Lost.ANSWER in example.lost) == (learned.strip() != wanted)


def test_it_never_begins_with_half_a_turn(tokenizer: Any) -> None:
    system = "Speak as the sea does, and speak slowly." if tokenizer.system else ""
    whole = _written(tokenizer, _messages(TURNS, system))
    begin = whole[: whole.index(system[:1] or TURNS[0])]
    least = _size(tokenizer, _written(tokenizer, _messages(("?",), system[:1]), ask=True))
    for room in range(least + 2, _size(tokenizer, whole)):
        example = _example(_messages(TURNS, system), tokenizer, room, "tokens")
        assert tokenizer.decode(example.ids).startswith(begin)
        assert len(example) <= room
    with pytest.raises(UserError, match="nothing is left to learn"):
        _example(_messages(TURNS, system), tokenizer, 9, "tokens")


@pytest.mark.parametrize("room", [60, 40])
def test_an_encoder_reads_the_latest_turns(room: int) -> None:
    tokenizer = _tokenizer("smollm2")
    example = _example(_messages(TURNS, "S"), tokenizer, room, "prompt_answer")
    asked = [
        _written(tokenizer, _messages(TURNS[start:-1], "S"), ask=True) for start in (0, 2, 4, 6)
    ]
    fits = [text for text in asked if _size(tokenizer, text) <= room]
    read = tokenizer.decode(example.ids[: example.prompt])
    if fits:
        assert (read, example.lost) == (fits[0], Lost.TURNS)
    assert read.startswith("<|im_start|>system\n") and read.endswith("<|im_start|>assistant\n")
    assert example.answer == "4!" and example.prompt <= room
    with pytest.raises(UserError, match="the chat template alone takes 3"):
        _example(_messages(TURNS), tokenizer, 12, "prompt_answer")


def test_a_prompt_that_begins_with_the_first_token_keeps_no_more_of_it() -> None:
    tokenizer = _tokenizer("smollm2")
    found = Row(prompt="<|im_start|>user\nWhere is it?", completion="there", place="f:1")
    [example] = render([found], tokenizer, "tokens", {}, "{text}", 12)
    assert tokenizer.decode(example.ids) == "is it?there<|im_end|>"
    assert example.lost == Lost.PROMPT


@pytest.mark.parametrize(
    ("found", "example_kind", "room", "lost", "missing"),
    [
        (Row(text="abcdef"), "tokens", 4, Lost.TEXT, 3),
        (Row(text="abcdef"), "tokens", 7, Lost.NOTHING, 0),
        (Row(prompt="abcdef", completion="123"), "tokens", 8, Lost.PROMPT, 2),
        (Row(prompt="abcdef", completion="123456"), "tokens", 6, Lost.PROMPT | Lost.ANSWER, 7),
        (Row(prompt="ab", completion="123456"), "tokens", 6, Lost.ANSWER, 3),
        (Row(prompt="abcdef", completion="12"), "prompt_answer", 4, Lost.TEXT, 2),
        (Row(prompt="ab", completion="123456"), "prompt_answer", 4, Lost.ANSWER, 3),
        (Row(prompt="abcdef", completion="123456"), "prompt_answer", 4, Lost.TEXT | Lost.ANSWER, 5),
        (Row(text="abcdef", label="x"), "label_words", 6, Lost.TEXT, 2),
        (Row(text="abc", label="x"), "label_words", 6, Lost.NOTHING, 0),
        (Row(text="abcdef", label="x"), "tokens", 6, Lost.TEXT, 2),
        (Row(text="abcdef", label="x"), "class_labels", 5, Lost.TEXT, 1),
        (Row(text="abcde", label="x"), "class_labels", 5, Lost.NOTHING, 0),
        (Row(text="ab cd", words=("ab", "cd"), tags=("x", "y")), "tags", 4, Lost.TEXT, 1),
        (Row(text="ab cd", words=("ab", "cd"), tags=("x", "y")), "tags", 5, Lost.NOTHING, 0),
        (Row(prompt="abcdef", chosen="12", rejected="123"), "answer_pairs", 8, Lost.PROMPT, 4),
    ],
)
def test_what_is_lost_is_told(
    found: Row, example_kind: str, room: int, lost: Lost, missing: int
) -> None:
    """missing: the tokens, one a letter, with the end of the text, beyond those in the room."""
    labels = {"x": "x", "y": "y"}
    [example] = render([found], _tokenizer("smollm2"), example_kind, labels, "{text}", room)
    assert (example.lost, example.missing) == (lost, missing)


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 8, 100])
@pytest.mark.parametrize("right", [0, 1, 2, 3, 7, 50, 100])
def test_most_is_found(limit: int, right: int) -> None:
    asked: list[int] = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= right

    assert most(limit, fits) == min(limit, right)
    assert max(asked, default=0) <= min(limit, max(1, 2 * right)) and 0 not in asked
