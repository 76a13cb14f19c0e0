// SPDX-License-Identifier: Apache-2.0

// Calls WeChat through the gateway with an unmodified wechat-api, for the test in the folder above. The SDK has no call that logs a user
// in. Its image is one that it uploads.

import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import WechatAPI from "wechat-api";

const read = (name) => readFile(join(process.env.WECHAT_DIR, name), "ascii");
const api = new WechatAPI(await read("app_id"), await read("app_secret"));
api.endpoint = await read("host");
api.setOpts({ timeout: 30_000 });

const promised = (call) => new Promise((resolve, reject) => call((error, result) => (error ? reject(error) : resolve(result))));

await writeFile("picture.jpg", Buffer.alloc(100_000, 0xd8));

const routes = {
  "/call": () => promised((done) => api.getIp(done)),
  "/image": () => promised((done) => api.uploadMedia("picture.jpg", "image", done)),
};

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  try {
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(await routes[pathname]()));
  } catch (error) {
    const text = error.message.replace(/(access_token|secret)=[^&"\s]*/g, "$1=…");
    response.writeHead(502, { "Content-Type": "application/json" }).end(JSON.stringify({ error: text }));
  }
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
