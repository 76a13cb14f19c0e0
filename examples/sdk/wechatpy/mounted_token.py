# SPDX-License-Identifier: Apache-2.0
"""Calls WeChat with wechatpy and the token in a mounted Secret. The SDK never fetches a token.

docs/sdk.md says what of this was run.
"""

import re
from pathlib import Path

# docs:start
from wechatpy import WeChatClient
from wechatpy.exceptions import WeChatClientException


class MountedTokenClient(WeChatClient):
    """A client that reads the token before each call. secret is the AppSecret; only logins need it.

    auto_retry is off: it is what makes the SDK fetch a token at 40001, 40014 and 42001, again and again.
    """

    def __init__(self, directory="/var/run/wechat", secret=""):
        self.directory = Path(directory)
        super().__init__(self.read("app_id"), secret, timeout=10, auto_retry=False)

    @property
    def access_token(self):
        return self.read("access_token")

    def fetch_access_token(self):
        raise RuntimeError("the token comes from the mounted Secret")

    def read(self, name):
        """Reads a file by its path, because the kubelet replaces the folder that holds it.

        If that happens between two steps of the path, the second attempt finds the new one.
        """
        try:
            return (self.directory / name).read_text("ascii")
        except FileNotFoundError:
            return (self.directory / name).read_text("ascii")


class TokenRefused(Exception):
    """WeChat refuses the token in the volume, and there is no newer one yet. Answer with 503."""


def call(client, do_call):
    """Calls WeChat. When WeChat refuses the token, it reads the file again.

    It repeats the call once if there is another token, and otherwise raises TokenRefused. It never fetches a token.
    """
    for _ in range(2):
        used = client.access_token
        try:
            return do_call(client)
        except WeChatClientException as e:
            if e.errcode not in (40001, 40014, 42001):
                raise
        if client.access_token == used:
            break
    raise TokenRefused


# docs:end


def without_token(error):
    """Returns the text of an error for a log. Errors of the connection have the whole URL in it, with the token."""
    return re.sub(r"(access_token|secret)=[^&\s\"]*", r"\1=…", str(error))


if __name__ == "__main__":
    try:
        print(call(MountedTokenClient(), lambda client: client.misc.get_wechat_ips()))
    except Exception as e:
        raise SystemExit(without_token(e)) from None
