<?php

// SPDX-License-Identifier: Apache-2.0

// docs/sdk.md says what of this was run.

// docs:start
use EasyWeChat\Kernel\Contracts\AccessToken;
use EasyWeChat\Kernel\Contracts\JsApiTicket;
use EasyWeChat\OfficialAccount\Application;

/** Takes token and ticket from a mounted Secret. The SDK calls toQuery before each call of WeChat. */
class MountedToken implements AccessToken, JsApiTicket
{
    public function __construct(private string $directory = '/var/run/wechat')
    {
    }

    public function getToken(): string
    {
        return $this->read('access_token');
    }

    public function toQuery(): array
    {
        return ['access_token' => $this->getToken()];
    }

    public function getTicket(): string
    {
        return $this->read('jsapi_ticket');
    }

    public function configSignature(string $url, string $nonce, int $timestamp): array
    {
        $signed = "jsapi_ticket={$this->getTicket()}&noncestr=$nonce&timestamp=$timestamp&url=$url";

        return ['appId' => $this->read('app_id'), 'nonceStr' => $nonce, 'timestamp' => $timestamp, 'url' => $url,
            'signature' => sha1($signed)];
    }

    /**
     * Reads a file by its path, because the kubelet replaces the folder that holds it. If that happens between two steps of
     * the path, the second attempt finds the new one.
     */
    public function read(string $name): string
    {
        $file = "$this->directory/$name";
        $content = @file_get_contents($file);
        if ($content === false) {
            $content = @file_get_contents($file);
        }

        return $content !== false ? $content : throw new RuntimeException("$file cannot be read");
    }
}

/** WeChat refuses the token in the volume, and there is no newer one yet. Answer with 503. */
class TokenRefused extends RuntimeException
{
}

/**
 * Calls WeChat and returns what it answers. When WeChat refuses the token, it reads the file again. It repeats the call once if
 * there is another token, and otherwise throws TokenRefused. It never fetches a token.
 */
function callWeChat(MountedToken $mounted, callable $call): array
{
    for ($attempt = 0; $attempt < 2; $attempt++) {
        $used = $mounted->getToken();
        $answer = $call()->toArray(false);
        if (! in_array($answer['errcode'] ?? 0, [40001, 40014, 42001], true)) {
            return $answer;
        }
        if ($mounted->getToken() === $used) {
            break;
        }
    }
    throw new TokenRefused('WeChat refuses the token in the volume, and there is no newer one yet');
}

// Only logins need the AppSecret, so it may be empty.
function newApplication(MountedToken $mounted, string $appSecret = ''): Application
{
    $app = new Application(['app_id' => $mounted->read('app_id'), 'secret' => $appSecret]);
    $app->setAccessToken($mounted);
    $app->setTicket($mounted);

    return $app;
}
// docs:end
