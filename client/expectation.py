"""What an answer should be, in a form that can be shown and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from client.api import Answer, Malformed


@dataclass(frozen=True, slots=True)
class Expectation:
    """Of the parts that are set, each must be as it says.

    A header is to have one of the values given, or only to be there if none is given.
    """

    status: int
    text: str | None = None  # the whole body
    data: Mapping[str, Any] = field(default_factory=dict)  # among what stands under `data`
    form: Callable[[Answer], object] | None = None  # raises Malformed for a wrong one
    message: str | None = None  # the error's, whole
    names: str | None = None  # a word in the error's message
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""  # for the reader

    def differences(self, answer: Answer) -> list[str]:
        found = []
        if answer.status != self.status:
            found.append(f"the status is {answer.status}")
        if self.text is not None and answer.body != self.text:
            found.append(f"the body is {answer.body!r}")
        for name, value in self.data.items():
            seen = answer.data.get(name) if isinstance(answer.data, dict) else None
            if seen != value:
                found.append(f"{name} is {seen}")
        found += self._form_differences(answer) if not found else []
        return found + self._error_differences(answer) + self._header_differences(answer)

    def __str__(self) -> str:
        shown = [str(self.status)]
        if self.text is not None:
            shown.append(self.text)
        if self.data:
            shown.append(json.dumps(dict(self.data)))
        if self.message is not None:
            shown.append(f'"{self.message}"')
        if self.names is not None:
            shown.append(f"a message that names '{self.names}'")
        shown += [f"{name}: {' or '.join(values) or '…'}" for name, values in self.headers.items()]
        if self.note:
            shown.append(f"({self.note})")
        return "  ".join(shown)

    def _form_differences(self, answer: Answer) -> list[str]:
        try:
            if self.form is not None:
                self.form(answer)
        except Malformed as error:
            return [str(error)]
        return []

    def _error_differences(self, answer: Answer) -> list[str]:
        """Every error is JSON, with the status for its code."""
        if answer.status < HTTPStatus.BAD_REQUEST:
            return []
        error = answer.body.get("error") if isinstance(answer.body, dict) else None
        if not isinstance(error, dict) or answer.error_message is None:
            return ["the body is not an error of the API"]
        found = []
        if error.get("code") != answer.status:
            found.append(f"the error's code is {error.get('code')}")
        message = answer.error_message
        if self.message is not None and message != self.message:
            found.append(f"the message is {message!r}")
        if self.names is not None and self.names.lower() not in message.lower():
            found.append(f"the message does not name {self.names}")
        return found

    def _header_differences(self, answer: Answer) -> list[str]:
        found = []
        for name, values in {**self.headers, "Cache-Control": ("no-store",)}.items():
            seen = answer.headers.get(name)
            if seen is None:
                found.append(f"there is no {name}")
            elif values and seen not in values:
                found.append(f"{name} is {seen}")
        return found
