"""Split MIL text into tokens, one at a time, in linear time for any text; every error has a position."""

from __future__ import annotations

import re
from typing import NoReturn

from tlkit.errors import LoadError

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@$:]*")
"""A name that needs no quotes."""

# The quantifiers are possessive: a string that never ends costs one look at the rest of the text, not many.
_TOKEN = re.compile(
    r"//[^\n]*+"  # a comment
    r'|"[^"\\]*+(?:\\.[^"\\]*+)*+"'  # a string
    r"|nan\(0x[0-9a-f]+\)"  # a NaN with its bits
    r"|[A-Za-z_][A-Za-z0-9_.@$:]*+"  # a name
    r"|->"
    # a hexadecimal float as C's %a writes it, or an integer
    r"|[-+]?(?:0[xX][0-9a-fA-F]*+(?:\.[0-9a-fA-F]*+)?(?:[pP][-+]?[0-9]++)?"
    r"|(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?|(?:inf|nan)\b)"  # a decimal number, inf or nan
    r"|\S",  # anything else is a token of one character
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_UNESCAPED = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_ESCAPED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_LONGEST_NUMBER = 400  # characters; the largest double has 309 digits before its point


class Lexer:
    """The tokens of ``text``; :attr:`token` is the next one (``""`` at the end), ``name`` is the file's name for
    errors."""

    def __init__(self, text: str, name: str) -> None:
        self.token = ""
        self._text = text
        self._name = name
        self._start = 0
        self._matches = _TOKEN.finditer(text)
        self.advance()

    def advance(self) -> str:
        """Return the next token and move past it."""
        passed = self.token
        for match in self._matches:
            self.token = match[0]
            self._start = match.start()
            if not self.token.startswith("//"):
                if self.token == '"':
                    self.fail("a string that never ends")
                return passed
        self.token, self._start = "", len(self._text)
        return passed

    def accept(self, token: str) -> bool:
        """Move past the next token if it is ``token``; return whether it was."""
        if self.token == token:
            self.advance()
            return True
        return False

    def expect(self, token: str) -> None:
        """Move past ``token``, which must be next."""
        if self.token != token:
            self.fail(f"expected '{token}'")
        self.advance()

    def at_word(self) -> bool:
        """Whether an identifier is next."""
        first = self.token[:1]
        # nan(0x7e01) begins like a word.
        return (first == "_" or (first.isalpha() and first.isascii())) and self.token[-1] != ")"

    def name(self) -> str:
        """Return a name: an identifier, a quoted string or (from some writers) a number."""
        if not self.token:
            self.fail("expected a name")
        first = self.token[0]
        if first == '"':
            return self.string()
        if not (self.at_word() or first.isdigit()):
            self.fail("expected a name")
        return self.advance()

    def string(self) -> str:
        """Return the text of a quoted string."""
        if not self.token.startswith('"'):
            self.fail("expected a string")
        return unquote(self.advance())

    def number_text(self) -> str:
        """Return the next token without moving past it; LoadError where it is longer than any number needs to be."""
        if len(self.token) > _LONGEST_NUMBER:
            self.fail("a number of unreasonable length")
        return self.token

    def whole(self) -> int:
        """Return a whole number from 0 to 2**63 - 1: a dimension or an offset."""
        if not (self.token.isascii() and self.token.isdigit()):
            self.fail("expected a whole number")
        # The length is checked first, since int() takes quadratic time.
        if len(self.token) > 19 or int(self.token) >= 1 << 63:
            self.fail("a number past 2**63 - 1")
        return int(self.advance())

    def fail(self, reason: str) -> NoReturn:
        """Raise a LoadError with the position of the next token and the reason."""
        line = self._text.count("\n", 0, self._start) + 1
        column = self._start - self._text.rfind("\n", 0, self._start)
        found = _shown(self.token) if self.token else "the end of the text"
        raise LoadError(
            f"{self._name}:{line}:{column}: {reason}, found {found}", "the text is damaged or not what coremlc writes"
        )


def quote(text: str) -> str:
    """Return ``text`` as a quoted MIL string of printable characters only."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_escape, text))}"'


def unquote(token: str) -> str:
    """Return what a quoted string says. A backslash before a character with no special meaning stays."""
    inner = token[1:-1]
    return _ESCAPE.sub(_unescape, inner) if "\\" in inner else inner


def _escape(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) == 1:
        return _UNESCAPED.get(escape, match[0])
    code = int(escape[1:], 16)
    # A surrogate would make a text that cannot be encoded.
    is_character = code < 0xD800 or 0xE000 <= code <= 0x10FFFF
    return chr(code) if is_character else match[0]


def _shown(token: str) -> str:
    return repr(token if len(token) <= 40 else f"{token[:37]}...")
