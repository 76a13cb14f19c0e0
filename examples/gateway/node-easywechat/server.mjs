// SPDX-License-Identifier: Apache-2.0

// Calls WeChat through the gateway with an unmodified node-easywechat. The program has neither the AppSecret nor a token of WeChat's.
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
import easywechat from "node-easywechat";

// docs:start

const read = (name) => readFile(join(process.env.WECHAT_DIR || "/var/run/wechat", name), "ascii");

// newApp returns an application of the SDK that calls the gateway: http.baseURL moves the calls, the fetching of tokens and the
// logins. It caches tokens in files below the working directory, as always.
async function newApp() {
  return new easywechat.MiniApp({
    app_id: await read("app_id"),
    secret: await read("app_secret"),
    use_stable_access_token: true,
    http: { baseURL: `${await read("host")}/`, timeout: 30_000 },
  });
}

// docs:end

const app = await newApp();

// checked returns the object that WeChat answers, and throws its errcode.
async function checked(response) {
  const answer = (await response).toObject();
  if (answer?.errcode) {
    throw new Error(`errcode ${answer.errcode}: ${answer.errmsg}`);
  }
  return answer;
}

async function image() {
  const response = await app.getClient().postJson("/wxa/getwxacodeunlimit", { scene: "id=1", page: "pages/index" },
    { responseType: "arraybuffer" });
  const type = response.getHeader("content-type");
  const content = response.getContent();
  if (!String(type).startsWith("image/")) {
    throw new Error(`no image: ${Buffer.from(content)}`);
  }
  return { bytes: Buffer.from(content).length };
}

const routes = {
  "/call": () => checked(app.getClient().get("/cgi-bin/getcallbackip")),
  "/image": image,
  "/login": (query) => app.getUtils().codeToSession(query.get("code")),
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
    console.error(error.message);
    response.writeHead(502, { "Content-Type": "application/json" }).end(JSON.stringify({ error: error.message }));
  }
});
server.listen(process.env.PORT || 8080, process.env.HOST, () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});
