// SPDX-License-Identifier: Apache-2.0

// Calls WeChat with node-easywechat and the token in a mounted Secret. The SDK never fetches a token.
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
import easywechat from "node-easywechat";

// docs:start

const dir = process.env.WECHAT_DIR || "/var/run/wechat";

// read reads a file by its path, because the kubelet replaces the folder that holds it. If that happens between two steps of
// the path, the second attempt finds the new one.
function read(name) {
  const path = join(dir, name);
  return readFile(path, "ascii").catch(() => readFile(path, "ascii"));
}

// newApp returns an application of the SDK that fetches neither tokens nor tickets. The SDK calls toQuery before each call of
// WeChat. setAccessToken comes first: getTicket and getClient keep the source of tokens that they find.
function newApp(appID, appSecret, http) {
  const app = new easywechat.OfficialAccount({ app_id: appID, secret: appSecret, http });
  app.setAccessToken({
    getToken: () => read("access_token"),
    toQuery: async () => ({ access_token: await read("access_token") }),
  });
  app.getTicket().getTicket = () => read("jsapi_ticket");
  return app;
}

class TokenRefused extends Error {
  message = "WeChat refuses the token in the volume, and there is no newer one yet";
}

// call calls WeChat and returns the object that WeChat answers. When WeChat refuses the token, it reads the file again. It
// repeats the call once if there is another token, and otherwise throws TokenRefused. It never fetches a token.
async function call(doCall) {
  for (let attempt = 0; attempt < 2; attempt++) {
    const used = await read("access_token");
    // Errors of the connection have the request in their properties, with the token. Only their text may be logged.
    const response = await doCall().catch((error) => Promise.reject(new Error(error.message)));
    if (response.isFailed()) {
      throw new Error(`HTTP status ${response.getStatusCode()}`); // the SDK would return what it makes of an error page
    }
    const answer = response.toObject();
    if (!answer?.errcode) {
      return answer;
    }
    if (![40001, 40014, 42001].includes(answer.errcode)) {
      throw new Error(`errcode ${answer.errcode}: ${answer.errmsg}`);
    }
    if ((await read("access_token")) === used) {
      break;
    }
  }
  throw new TokenRefused();
}

// docs:end

const baseURL = process.env.WECHAT_ENDPOINT || "https://api.weixin.qq.com";
const app = newApp(await read("app_id"), process.env.WECHAT_APP_SECRET || "", { baseURL, timeout: 10_000 });

const routes = {
  "/callback-ips": () => call(() => app.getClient().get("/cgi-bin/getcallbackip")),
  "/signature": (query) => app.getUtils().buildJsSdkConfig(query.get("url")),
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
