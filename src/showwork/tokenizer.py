"""SentencePiece with Gemma's ids: trained for the tiny models, read from the checkpoint for a published one."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece

from showwork.errors import UserError
from showwork.files import read_json, write_bytes, write_json
from showwork.prompts import CHAT_TEMPLATE, TURN_CLOSE, TURN_OPEN, render_prompt
from showwork.reading.answers import ANSWER_CLOSE, ANSWER_OPEN, REASONING_CLOSE, REASONING_OPEN
from showwork.reading.dual import CALC, HEADINGS

MODEL_FILE = "tokenizer.model"
CONFIG_FILE, SPECIAL_FILE, TEMPLATE_FILE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
# Only SentencePiece's model is read here; the rest is for loading the folder with transformers.
FAST_FILE = "tokenizer.json"
FILES = (MODEL_FILE, FAST_FILE, CONFIG_FILE, SPECIAL_FILE, "added_tokens.json", TEMPLATE_FILE)
_SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
PAD, EOS, BOS, UNK = 0, 1, 2, 3  # Gemma's
SPACE_MARK = "\u2581"  # the space inside a piece
# Single tokens, so that a tag is one decision of the model. Published Gemmas have the turn markers and the newline
# as tokens too; the tags and headings are ordinary text to them.
SYMBOLS = (
    TURN_OPEN, TURN_CLOSE, REASONING_OPEN, REASONING_CLOSE, ANSWER_OPEN, ANSWER_CLOSE, *HEADINGS, CALC, "\n",
)  # fmt: skip


class Tokenizer:
    """Lossless encoding and decoding, with the methods that Tunix requires of a tokenizer.

    Tunix's own adapter strips control tokens and rejects numpy strings.
    """

    def __init__(self, model: bytes):
        if not model:
            raise RuntimeError("empty")  # SentencePiece would treat it as no model given
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, text: str) -> list[int]:
        """Ids without BOS or EOS; the caller adds them."""
        return self._processor.encode(str(text))

    def prompt_ids(self, question: str, *, system: str) -> list[int]:
        """Ids of everything before a completion, BOS included."""
        return [self.bos_id(), *self.encode(render_prompt(question, system=system))]

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode([int(i) for i in ids])

    def bos_id(self) -> int:
        return self._processor.bos_id()

    def eos_id(self) -> int:
        return self._processor.eos_id()

    def pad_id(self) -> int:
        return self._processor.pad_id()

    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a turn of a published Gemma: <end_of_turn>, which ends a training target, and <eos>."""
        return (*self.encode(TURN_CLOSE), self.eos_id())

    def word_ids(self) -> list[int]:
        """Ids of ordinary pieces: no control token, no symbol of SYMBOLS, no single byte."""
        pieces = self._processor
        marks = {pieces.piece_to_id(symbol) for symbol in SYMBOLS}
        return [
            i
            for i in range(len(self))
            if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i) or i in marks)
        ]

    def __len__(self) -> int:
        return self._processor.get_piece_size()


def train(texts: Iterable[str], *, vocabulary: int) -> bytes:
    """Trains a BPE model of `vocabulary` pieces; the same texts in the same order give the same bytes.

    Nothing is normalised, digits are single pieces and unseen characters fall back to bytes, so that every
    text survives encode and decode. Training is in memory, because a file's path would end up in the model.

    Raises UserError if the texts have too few distinct pieces.
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
    """Lines for the trainer; the newline is a symbol of its own, so splitting there loses nothing."""
    for text in texts:
        yield from (line for line in text.split("\n") if line)


def find_lossy(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """The texts that encode and decode do not reproduce exactly."""
    return [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]


def save(model: bytes, folder: Path) -> None:
    """Writes the tokenizer files of a Hugging Face checkpoint, in place of those that are there."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    write_bytes(folder / MODEL_FILE, model)
    _complete(folder)


def adopt(source: Path, folder: Path) -> None:
    """Copies the tokenizer files of a published checkpoint, and writes those that transformers needs and it lacks."""
    copy(source, folder)
    _complete(folder)


def copy(source: Path, folder: Path) -> None:
    """Copies the tokenizer files that source has."""
    for name in FILES:
        if (source / name).exists():
            write_bytes(folder / name, (source / name).read_bytes())


def _complete(folder: Path) -> None:
    """Writes what transformers reads besides the model; what is there already is kept."""
    if not (folder / SPECIAL_FILE).exists():
        write_json(folder / SPECIAL_FILE, _SPECIAL)
    path = folder / CONFIG_FILE
    theirs = read_json(path) if path.exists() else {"mask_token": None}  # or transformers adds a token <mask>
    ours = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        **_SPECIAL,
    }
    if (folder / TEMPLATE_FILE).exists():
        del ours["chat_template"]
    if not (folder / FAST_FILE).exists() and (spaces := _spaces((folder / MODEL_FILE).read_bytes())):
        ours["added_tokens_decoder"] = spaces
    if ours.keys() - theirs.keys():
        write_json(path, ours | theirs)


def _spaces(model: bytes) -> dict[str, Any]:
    """Id → entry for transformers, of the symbols of the user that hold spaces.

    A published Gemma has runs of up to 31 spaces among them. SentencePiece finds these in texts before anything else;
    transformers looks for them before it writes spaces as SentencePiece does, finds none, and so splits a run of 32
    into 16 and 16. `normalized` makes it look after.
    """
    from sentencepiece import sentencepiece_model_pb2  # here, because it takes as long as the rest of the module

    protocol: Any = sentencepiece_model_pb2
    entry = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}
    return {
        str(i): {"content": piece.piece, **entry}
        for i, piece in enumerate(protocol.ModelProto.FromString(model).pieces)
        if piece.type == piece.USER_DEFINED and SPACE_MARK in piece.piece
    }


def load(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder. Raises UserError if its size is not that of the model beside it."""
    tokenizer = _read(folder, "`dvc repro` makes it")
    config = folder / "config.json"
    if config.exists() and (vocabulary := read_json(config).get("vocab_size")) != len(tokenizer):
        raise UserError(
            f"{folder}: {MODEL_FILE} has {len(tokenizer)} tokens, config.json a vocabulary of {vocabulary}: "
            "they are not of one model"
        )
    return tokenizer


def load_published(folder: Path) -> Tokenizer:
    """The tokenizer of a published Gemma. Raises UserError if SentencePiece's model is missing or not Gemma's."""
    has_other = (folder / FAST_FILE).exists()
    why = "tokenizer.json is another format, which is not read here" if has_other else "every published Gemma has one"
    tokenizer = _read(folder, f"{why}: take it from the model's page")
    ids = (tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.bos_id())
    if ids != (PAD, EOS, BOS) or any(len(tokenizer.encode(mark)) != 1 for mark in (TURN_OPEN, TURN_CLOSE)):
        raise UserError(f"{folder / MODEL_FILE}: not Gemma's: {TURN_OPEN}, <pad>, <eos> and <bos> are not its tokens")
    return tokenizer


def _read(folder: Path, way_out: str) -> Tokenizer:
    try:
        return Tokenizer((folder / MODEL_FILE).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder / MODEL_FILE}: no such file; {way_out}") from None
    except RuntimeError as error:
        raise UserError(f"{folder / MODEL_FILE}: not a SentencePiece model ({error})") from None
