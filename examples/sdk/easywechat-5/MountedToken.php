<?php

// SPDX-License-Identifier: Apache-2.0

// docs/sdk.md says what of this was run.

// docs:start
use EasyWeChat\BasicService\Jssdk;
use EasyWeChat\Factory;
use EasyWeChat\OfficialAccount\Application;
use EasyWeChat\OfficialAccount\Auth\AccessToken;

/**
 * Reads a file of a mounted Secret by its path, because the kubelet replaces the folder that holds it. If that happens between
 * two steps of the path, the second attempt finds the new one.
 */
function readMounted(string $name): string
{
    $file = '/var/run/wechat/'.$name;
    $content = @file_get_contents($file);
    if ($content === false) {
        $content = @file_get_contents($file);
    }
    if ($content === false) {
        throw new RuntimeException("$file cannot be read");
    }

    return $content;
}

/**
 * Takes the token from the mounted Secret. The SDK calls getToken before each call of WeChat. At 40001, 40014 and 42001 it calls
 * getToken(true) and repeats the call once, so that it reads the file again.
 */
class MountedToken extends AccessToken
{
    public function getToken(bool $refresh = false): array
    {
        return ['access_token' => readMounted('access_token'), 'expires_in' => 60];
    }
}

/** Takes the ticket from the mounted Secret. */
class MountedTicket extends Jssdk\Client
{
    public function getTicket(bool $refresh = false, string $type = 'jsapi'): array
    {
        return ['ticket' => readMounted($type.'_ticket'), 'expires_in' => 60];
    }
}

// Only logins need the AppSecret, so it may be empty. The token comes first, because each client keeps the one that it finds.
function newApplication(string $appSecret = ''): Application
{
    $app = Factory::officialAccount(['app_id' => readMounted('app_id'), 'secret' => $appSecret]);
    $app->rebind('access_token', new MountedToken($app));
    $app->rebind('jssdk', new MountedTicket($app));

    return $app;
}
// docs:end
