# SPDX-License-Identifier: Apache-2.0
"""Reads WeChat's access token from a mounted Secret, anew for each call:

    python3 reader.py /var/run/wechat

Each line on standard input stands for one call of WeChat's API. It has the errcodes that WeChat answers, 0 for success.
"""

import hashlib
import json
import os
import sys
from typing import Callable, NamedTuple


class Token(NamedTuple):
    """A token and what belongs to it. Do not keep it for longer than a minute, and do not log its value."""

    value: str
    expires_at: str  # RFC 3339, UTC
    app_id: str


# docs:start


def read_token(directory: str) -> Token:
    """Reads token and expiry from one snapshot of the volume.

    The kubelet replaces the folder behind the link ..data as a whole, so the link is resolved once. A folder that
    vanishes meanwhile has a successor.
    """
    link = os.path.join(directory, "..data")
    while True:
        try:
            snapshot = os.readlink(link)
        except OSError as e:
            raise RuntimeError(f"{directory} is not a mounted Secret; mount the whole volume, without subPath") from e

        def read(name: str) -> str:
            with open(os.path.join(directory, snapshot, name), encoding="ascii") as file:
                return file.read()

        try:
            return Token(read("access_token"), read("expires_at"), read("app_id"))
        except FileNotFoundError:
            if os.readlink(link) == snapshot:
                raise  # the file is not in the Secret


def with_token(directory: str, call: Callable[[Token], int]) -> int:
    """Calls WeChat with the current token.

    When WeChat does not accept it any more, a newer one is in the volume, or will be soon: it reads again and repeats
    the call once. It never fetches a token.
    """
    errcode = call(read_token(directory))
    if errcode in (40001, 40014, 42001):
        errcode = call(read_token(directory))
    return errcode


# docs:end


def main() -> None:
    directory = sys.argv[1] if len(sys.argv) > 1 else "/var/run/wechat"
    for line in sys.stdin:
        answers = [int(word) for word in line.split()]
        used = []

        def call(token: Token) -> int:
            used.append(token)
            return answers[len(used) - 1]

        errcode = with_token(directory, call)
        # It prints the fingerprint of the token, never the token.
        fingerprint = hashlib.sha256(used[-1].value.encode()).hexdigest()[:16]
        print(json.dumps({"fingerprint": fingerprint, "expires_at": used[-1].expires_at, "app_id": used[-1].app_id,
                          "calls": len(used), "errcode": errcode}), flush=True)


if __name__ == "__main__":
    main()
