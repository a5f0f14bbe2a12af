"""The content of a message is text: if it contains the string of a special token, that string never becomes the token.

A chat template puts the messages between special tokens, and the tokenizer reads the result as one string. A question that quotes
`<|im_end|>` would end its own turn. An answer that contains it could never be generated: an output's text omits special tokens.

A message is therefore *veiled* before rendering: the first character of each special token's text is replaced by a Unicode noncharacter,
one for one, so that positions do not change. `encode` finds the template's own special tokens in the rendered string, lifts the veil, and
encodes the text between them with special tokens read as text. A string without a veil goes to the tokenizer whole: same ids, same speed.

Imports nothing of the package. Rendering is in `views.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

VEILS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Noncharacters: Unicode excludes them from text interchange."""
Offsets = list[tuple[int, int]]


class Content:
    """Veils messages and encodes the rendered strings. One per tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        special = [token for token in tokenizer.added_tokens_decoder.values() if token.special and str(token)]
        special.sort(key=lambda token: -len(str(token)))
        self._text = re.compile("|".join(re.escape(str(token)) for token in special) or r"(?!)")
        # lstrip and rstrip: the token also takes the white space on that side.
        self._token = re.compile(
            "|".join(r"\s*" * token.lstrip + re.escape(str(token)) + r"\s*" * token.rstrip for token in special) or r"(?!)"
        )
        self._ids = {str(token): id_ for id_, token in tokenizer.added_tokens_decoder.items()}
        firsts = sorted({str(token)[0] for token in special})
        assert len(firsts) <= len(VEILS), "special tokens begin with more distinct characters than there are veils"
        self._veil = dict(zip(firsts, VEILS, strict=False))
        self._lift = str.maketrans({veil: first for first, veil in self._veil.items()})
        self._encoders: tuple[Any, Any] | None = None

    def veiled(self, text: str) -> str:
        """The message at the same length, without the text of any special token."""
        while match := self._text.search(text):
            text = text[: match.start()] + self._veil[text[match.start()]] + text[match.start() + 1 :]
        return text

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[Offsets]]:
        """Token ids and character offsets of rendered strings; no special tokens are added."""
        if not texts:
            return [], []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
        for i, text in enumerate(texts):
            if any(veil in text for veil in self._veil.values()):
                ids[i], offsets[i] = self._encode(text)
        return ids, offsets

    def _encode(self, text: str) -> tuple[list[int], Offsets]:
        ids: list[int] = []
        offsets: Offsets = []
        start = 0
        for token in [*self._token.finditer(text), None]:
            end = token.start() if token is not None else len(text)
            if start < end:
                piece = self._plain(first=start == 0).encode(text[start:end].translate(self._lift), add_special_tokens=False)
                ids += piece.ids
                offsets += [(start + left, start + right) for left, right in piece.offsets]
            if token is not None:
                ids.append(self._ids[token.group().strip() if token.group() not in self._ids else token.group()])
                offsets.append(token.span())
                start = token.end()
        return ids, offsets

    def _plain(self, first: bool) -> Any:
        """The tokenizer with special tokens read as text. `first`: some tokenizers put a space before the first piece of a string only."""
        if self._encoders is None:
            whole = self.tokenizer.backend_tokenizer
            text = whole.to_str()
            self._encoders = tuple(
                type(whole).from_str(each) for each in (text, text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))
            )
            for encoder in self._encoders:
                encoder.encode_special_tokens = True
                encoder.no_truncation()
                encoder.no_padding()
        return self._encoders[0 if first else 1]
