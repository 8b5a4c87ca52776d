"""Whether anything listens at an address, asked before Ray is, which would try for minutes."""

from __future__ import annotations

import socket
from typing import Final

from study.messages import UserError

SECONDS_TO_REACH: Final = 10.0


def refuse_unreachable(address: str, shown: str | None = None) -> None:
    """Raises UserError where nothing listens at host:port; any other address is left to Ray.

    `shown`: the address in the user's words.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_REACH).close()
    except OSError as error:
        raise UserError(
            f"--address={shown or address}: no Ray cluster answers there ({error})"
        ) from error
