// SPDX-License-Identifier: Apache-2.0

// Calls WeChat through the gateway with an unmodified co-wechat-api. The program has neither the AppSecret nor a token of WeChat's.
//
// It serves GET /call, a call with the token; GET /image, a picture of a code for a mini program; and GET /login?code=…, a login.
// These environment variables configure it:
//
//   WECHAT_DIR           the folder where the client's key Secret is mounted, by default /var/run/wechat
//   NODE_EXTRA_CA_CERTS  the file ca.crt of that folder, where the gateway has a private CA
//   HOST, PORT           where to serve, by default port 8080 of all addresses

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import WechatAPI from "co-wechat-api";

// docs:start

const read = (name) => readFile(join(process.env.WECHAT_DIR || "/var/run/wechat", name), "ascii");

// newAPI returns a client of the SDK that calls the gateway. The SDK builds most of its URLs from these prefixes. Those of
// file.api.weixin.qq.com and mp.weixin.qq.com stay as they are, and do not work with the gateway's tokens.
async function newAPI() {
  const host = await read("host");
  const api = new WechatAPI(await read("app_id"), await read("app_secret"));
  api.prefix = `${host}/cgi-bin/`;
  api.snsPrefix = `${host}/sns/`;
  api.wxaPrefix = `${host}/wxa/`;
  api.merchantPrefix = `${host}/merchant/`;
  api.customservicePrefix = `${host}/customservice/`;
  return api;
}

// docs:end

const api = await newAPI();
api.setOpts({ timeout: 30_000 });

const routes = {
  "/call": () => api.getIp(),
  "/image": async () => ({ bytes: (await api.getWXACodeUnlimit("id=1", "pages/index")).length }),
  "/login": (query) => api.code2Session(query.get("code")),
};

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
    // The SDK's errors can have the whole URL in their text, with the key.
    const text = error.message.replace(/(access_token|secret)=[^&"\s]*/g, "$1=…");
    console.error(text);
    response.writeHead(502, { "Content-Type": "application/json" }).end(JSON.stringify({ error: text }));
  }
});
server.listen(process.env.PORT || 8080, process.env.HOST, () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});
