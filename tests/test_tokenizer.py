"""Gemma's ids, reproducible bytes, and lossless encoding of every text."""

import json
from io import BytesIO

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from showwork import tokenizer as tokenizers
from showwork.errors import UserError
from showwork.prompts import TURN_CLOSE, TURN_OPEN, render_prompt
from showwork.reading.answers import TAGS, render_completion

TEXTS = (
    "Tom has 5 apples and buys 3 more. How many apples does he have?",
    "Ann reads 12 pages a day for 4 days: 12 * 4 = 48 pages.",
    "A box of 24 pens costs $6, so one pen costs 6 / 24 = $0.25.",
    "Mia had 1,080 stamps and gave away 80.\nThere are 1,080 - 80 = 1,000 left.",
    render_completion("7 * 30 = 210", "210"),
)
# SentencePiece writes the space as this character inside its pieces, and can't distinguish the two.
SPACE_MARK = "\u2581"


@pytest.fixture(scope="module")
def model() -> bytes:
    return tokenizers.train(TEXTS, vocabulary=320)


@pytest.fixture(scope="module")
def words(model) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(model)


def test_ids_are_gemmas(words):
    assert (words.pad_id(), words.eos_id(), words.bos_id()) == (0, 1, 2)
    assert len(words) == 320
    assert words.encode(TURN_OPEN) == [4]


def test_equal_texts_give_equal_bytes(model):
    assert tokenizers.train(iter(TEXTS), vocabulary=320) == model


def test_encode_adds_neither_bos_nor_eos(words):
    assert not {0, 1, 2} & set(words.encode(render_prompt(TEXTS[0], system="")))
    assert words.encode("") == []
    assert words.decode([]) == ""


def test_each_tag_turn_marker_and_newline_is_one_id(words):
    singles = [words.encode(text) for text in (*TAGS, TURN_OPEN, TURN_CLOSE, "\n")]
    assert all(len(ids) == 1 for ids in singles)
    assert len({ids[0] for ids in singles}) == 7
    # Also between other letters, where a piece could swallow them.
    assert words.encode("a</answer>b")[1:-1] == words.encode("</answer>")


def test_digits_are_single(words):
    assert [words.decode([i]) for i in words.encode("1080")] == ["1", "0", "8", "0"]
    assert len(words.encode("99999")) == 5


def test_control_ids_decode_to_nothing(words):
    assert words.decode([2, *words.encode("Tom"), 1, 0]) == "Tom"


@pytest.mark.parametrize("text", ["<pad>", "<eos>", "<bos>", "<unk>", "<0x0A>", "<s>"])
def test_a_control_token_written_out_is_ordinary_text(words, text):
    ids = words.encode(text)
    assert len(ids) > 1
    assert words.decode(ids) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE_MARK)))
@example(" leading, trailing and  double   spaces ")
@example("\n\nnewlines \n and\r\n\ttabs\u00a0\u3000")
@example("é e\u0301 ﬁ ５ ² ½ × ÷ − € 😀👩‍👩‍👧 \u202e \ufeff \x00 \ufffd")
def test_every_text_comes_back_to_the_letter(words, text):
    assert words.decode(words.encode(text)) == text


def test_the_one_lossy_character_is_found(words):
    assert words.decode(words.encode(f"a{SPACE_MARK}b")) == "a b"
    assert tokenizers.find_lossy(words, ["fine", f"a{SPACE_MARK}b"]) == [f"a{SPACE_MARK}b"]


@pytest.mark.parametrize("vocabulary", [300, 100_000])
def test_a_vocabulary_that_does_not_fit_is_a_mistake(vocabulary):
    with pytest.raises(UserError, match=rf"tokenizer\.vocabulary {vocabulary} does not fit"):
        tokenizers.train(TEXTS, vocabulary=vocabulary)


def test_no_text_is_a_mistake():
    with pytest.raises(UserError, match=r"tokenizer\.vocabulary"):
        tokenizers.train([], vocabulary=320)


def test_saved_and_loaded(model, words, tmp_path):
    tokenizers.save(model, tmp_path)
    loaded = tokenizers.load(tmp_path)
    assert loaded.encode(TEXTS[0]) == words.encode(TEXTS[0])
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (written["bos_token"], written["eos_token"], written["pad_token"]) == ("<bos>", "<eos>", "<pad>")


def test_the_chat_template_renders_what_training_sees(tmp_path, model):
    jinja2 = pytest.importorskip("jinja2")
    tokenizers.save(model, tmp_path)
    template = json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"]
    for system in ("", "Think."):
        messages = [{"role": "system", "content": system}] if system else []
        text = jinja2.Template(template).render(
            messages=[*messages, {"role": "user", "content": "5 + 3?"}], bos_token="<bos>", add_generation_prompt=True
        )
        assert text == "<bos>" + render_prompt("5 + 3?", system=system)


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_missing_or_broken_model_is_a_mistake_that_names_the_file(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.model"):
        tokenizers.load(tmp_path)


def test_a_vocabulary_that_is_not_the_models_is_a_mistake(model, tmp_path):
    tokenizers.save(model, tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 320}')
    assert len(tokenizers.load(tmp_path)) == 320
    (tmp_path / "config.json").write_text('{"vocab_size": 262144}')
    with pytest.raises(UserError, match=r"has 320 tokens, config\.json a vocabulary of 262144"):
        tokenizers.load(tmp_path)


# ------------------------------------------------------------------------------------------------ published ones


def test_a_published_tokenizer_is_copied_with_what_stands_beside_it(model, words, tmp_path):
    source, folder = tmp_path / "source", tmp_path / "folder"
    tokenizers.save(model, source)
    (source / "tokenizer.json").write_text("{}")
    (source / "config.json").write_text("{}")  # the model's, not the tokenizer's
    assert tokenizers.load_published(source).encode(TEXTS[0]) == words.encode(TEXTS[0])
    tokenizers.copy(source, folder)
    names = {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: (source / name).read_bytes() for name in names
    }


def test_a_turn_of_a_published_model_ends_with_its_mark_or_eos(words):
    assert words.stop_ids() == (*words.encode(TURN_CLOSE), 1)
    assert len(words.stop_ids()) == 2


def test_tokenizer_json_alone_is_a_mistake_that_says_where_the_other_is(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.model: no such file; every published Gemma has one"):
        tokenizers.load_published(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.model: no such file; tokenizer\.json is another format"):
        tokenizers.load_published(tmp_path)


def test_another_familys_tokenizer_is_a_mistake(tmp_path):
    other = BytesIO()  # with SentencePiece's own ids, and no turn marks
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=other, model_type="bpe", vocab_size=100, minloglevel=2
    )
    (tmp_path / "tokenizer.model").write_bytes(other.getvalue())
    with pytest.raises(UserError, match=r"tokenizer\.model: not Gemma's"):
        tokenizers.load_published(tmp_path)
