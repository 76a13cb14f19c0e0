// SPDX-License-Identifier: Apache-2.0

// Calls WeChat with co-wechat-api and the token in a mounted Secret. The SDK never fetches a token.
//
// It serves GET /callback-ips, a call with the token, and GET /signature?url=…, a signature for JS-SDK with the jsapi_ticket
// in the same Secret. These environment variables configure it:
//
//   WECHAT_DIR         the folder where the Secret is mounted, by default /var/run/wechat
//   HOST, PORT         where to serve, by default port 8080 of all addresses
//   WECHAT_APP_SECRET  the AppSecret; only logins need it, so it may be empty
//   WECHAT_ENDPOINT    replaces https://api.weixin.qq.com in tests

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import WechatAPI from "co-wechat-api";

// docs:start

const dir = process.env.WECHAT_DIR || "/var/run/wechat";

// read reads a file by its path, because the kubelet replaces the folder that holds it. If that happens between two steps of
// the path, the second attempt finds the new one.
function read(name) {
  const path = join(dir, name);
  return readFile(path, "ascii").catch(() => readFile(path, "ascii"));
}

// newAPI returns a client of the SDK that fetches neither tokens nor tickets. The SDK calls the first function before each
// call of WeChat. The expiry is WeChat's to judge, so none is given here.
//
// The last argument, tokenFromCustom, is what keeps the SDK from fetching: without it 40001 and 42001 make it fetch a token.
function newAPI(appID, appSecret) {
  const getToken = async () => ({ accessToken: await read("access_token"), expireTime: Infinity });
  const getTicket = async (type = "jsapi") => ({ ticket: await read(`${type}_ticket`), expireTime: Infinity });
  const save = async () => {};
  const api = new WechatAPI(appID, appSecret, getToken, save, true);
  api.registerTicketHandle(getTicket, save);
  return api;
}

class TokenRefused extends Error {
  message = "WeChat refuses the token in the volume, and there is no newer one yet";
}

// call calls WeChat. When WeChat refuses the token, it reads the file again. It repeats the call once if there is another
// token, and otherwise throws TokenRefused. It never fetches a token.
async function call(doCall) {
  for (let attempt = 0; attempt < 2; attempt++) {
    const used = await read("access_token");
    try {
      return await doCall();
    } catch (error) {
      if (![40001, 40014, 42001].includes(error.code)) {
        // The SDK's errors can have the whole URL in their text, with the token.
        throw new Error(error.message.replace(/(access_token|secret)=[^&"\s]*/g, "$1=…"));
      }
      if ((await read("access_token")) === used) {
        break;
      }
    }
  }
  throw new TokenRefused();
}

// docs:end

const api = newAPI(await read("app_id"), process.env.WECHAT_APP_SECRET || "");
api.setOpts({ timeout: 10_000 });
if (process.env.WECHAT_ENDPOINT) {
  api.prefix = `${process.env.WECHAT_ENDPOINT}/cgi-bin/`;
}

const routes = {
  "/callback-ips": () => call(() => api.getIp()),
  "/signature": (query) => api.getJsConfig({ url: query.get("url"), jsApiList: [] }),
};

// The answer is 503 while WeChat refuses the token, so that the caller tries again, and 502 after other errors.
const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (request.method !== "GET" || !Object.hasOwn(routes, pathname)) {
    response.writeHead(404).end();
    return;
  }
  try {
    const body = JSON.stringify(await routes[pathname](searchParams));
    response.writeHead(200, { "Content-Type": "application/json" }).end(body);
  } catch (error) {
    console.error(error.message);
    const [status, headers] = error instanceof TokenRefused ? [503, { "Retry-After": "10" }] : [502, {}];
    response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify({ error: error.message }));
  }
});
server.listen(process.env.PORT || 8080, process.env.HOST, () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});
