"""How a service refuses the settings in its environment."""

from __future__ import annotations

import pytest

from common.settings import ServiceSettings, load_settings

SERVICE = "service"


def refusal(kind: type[ServiceSettings], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which it stops, without the service's name."""
    with pytest.raises(SystemExit) as stopped:
        load_settings(kind, SERVICE)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{SERVICE}: ")
    return line.removeprefix(f"{SERVICE}: ")
