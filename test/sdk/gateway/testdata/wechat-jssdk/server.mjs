// SPDX-License-Identifier: Apache-2.0

// Calls WeChat through the gateway with an unmodified wechat-jssdk, for the test in the folder above. The SDK's call with the app's token
// is the one for a jsapi_ticket. It has no call whose answer is an image.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import jssdk from "wechat-jssdk";

const read = (name) => readFile(join(process.env.WECHAT_DIR, name), "ascii");
const host = await read("host");
const [appId, appSecret] = [await read("app_id"), await read("app_secret")];
const wechat = new jssdk.Wechat({
  appId,
  appSecret,
  accessTokenUrl: `${host}/cgi-bin/token`,
  ticketUrl: `${host}/cgi-bin/ticket/getticket`,
  apiUrl: host,
  miniProgram: { appId, appSecret, GET_SESSION_KEY_URL: `${host}/sns/jscode2session` },
});

const routes = {
  "/call": () => wechat.jssdk.getGlobalTokenAndTicket(true),
  "/login": (query) => wechat.miniProgram.getSession(query.get("code")),
};

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  try {
    const answer = await routes[pathname](searchParams);
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ got: Object.keys(answer) }));
  } catch (error) {
    const text = String(error.errmsg || error.message).replace(/(access_token|secret)=[^&"\s]*/g, "$1=…");
    response.writeHead(502, { "Content-Type": "application/json" }).end(JSON.stringify({ error: text }));
  }
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
