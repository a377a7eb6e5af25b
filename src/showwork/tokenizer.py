"""SentencePiece with Gemma's ids: trained for the tiny models, read from the checkpoint for a published one."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import sentencepiece

from showwork.errors import UserError
from showwork.files import write_bytes, write_json
from showwork.problems.answers import ANSWER_CLOSE, ANSWER_OPEN, REASONING_CLOSE, REASONING_OPEN
from showwork.prompts import CHAT_TEMPLATE, TURN_CLOSE, TURN_OPEN

MODEL_FILE = "tokenizer.model"
PAD, EOS, BOS, UNK = 0, 1, 2, 3  # Gemma's
# One symbol each, so that a tag is one decision of the model. Gemma has the turn markers and the newline as
# symbols too; the tags are ordinary text to it.
SYMBOLS = (TURN_OPEN, TURN_CLOSE, REASONING_OPEN, REASONING_CLOSE, ANSWER_OPEN, ANSWER_CLOSE, "\n")


class Tokenizer:
    """Text to ids and back, to the letter. The methods are those that Tunix asks of a tokenizer.

    Tunix's own adapter strips control tokens and refuses numpy strings, hence a class of our own.
    """

    def __init__(self, model: bytes):
        if not model:
            raise RuntimeError("empty")  # which SentencePiece takes for no model given
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, text: str) -> list[int]:
        """Ids without BOS or EOS: the caller says where a row starts and ends."""
        return self._processor.encode(str(text))

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([int(i) for i in ids])

    def bos_id(self) -> int:
        return self._processor.bos_id()

    def eos_id(self) -> int:
        return self._processor.eos_id()

    def pad_id(self) -> int:
        return self._processor.pad_id()

    def __len__(self) -> int:
        return self._processor.get_piece_size()


def train(texts: Iterable[str], *, vocabulary: int) -> bytes:
    """A BPE model of `vocabulary` pieces as bytes: equal texts in equal order give equal bytes.

    Nothing is normalised, digits are single pieces and unseen characters fall back to bytes, so that every
    text survives encode and decode. Trained from memory to memory: a file's path would end up in the model.

    Raises UserError where the texts have fewer distinct pieces than asked.
    """
    writer = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=writer,
            model_type="bpe",
            vocab_size=vocabulary,
            pad_id=PAD,
            eos_id=EOS,
            bos_id=BOS,
            unk_id=UNK,
            pad_piece="<pad>",
            eos_piece="<eos>",
            bos_piece="<bos>",
            unk_piece="<unk>",
            user_defined_symbols=list(SYMBOLS),
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            character_coverage=1.0,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"tokenizer.vocabulary {vocabulary} does not fit the training text: {error}") from None
    return writer.getvalue()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """The trainer takes lines; the newline itself is a symbol, so nothing is lost by splitting there."""
    for text in texts:
        yield from (line for line in text.split("\n") if line)


def find_lossy(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The texts that encode and decode do not give back to the letter."""
    return [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]


def save(model: bytes, folder: Path) -> None:
    """The tokenizer files of a Hugging Face checkpoint."""
    write_bytes(folder / MODEL_FILE, model)
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
            **special,
        },
    )


def load(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder."""
    try:
        return Tokenizer((folder / MODEL_FILE).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder / MODEL_FILE}: no such file; `dvc repro tokenizer` makes it") from None
    except RuntimeError as error:
        raise UserError(f"{folder / MODEL_FILE}: not a SentencePiece model ({error})") from None
