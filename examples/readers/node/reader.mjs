// SPDX-License-Identifier: Apache-2.0

// Reads WeChat's access token from a mounted Secret, anew for each call:
//
//   node reader.mjs /var/run/wechat
//
// Each line on standard input stands for one call of WeChat's API. It has the errcodes that WeChat answers, 0 for success.

import { createHash } from "node:crypto";
import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

// docs:start

// readToken reads token and expiry from one snapshot of the volume. The kubelet replaces the folder behind the link
// ..data as a whole, so the link is resolved once. A folder that vanishes meanwhile has a successor.
// Do not keep the result for longer than a minute, and do not log its value.
export async function readToken(dir) {
  const link = join(dir, "..data");
  for (;;) {
    let snapshot;
    try {
      snapshot = await readlink(link);
    } catch (cause) {
      throw new Error(`${dir} is not a mounted Secret; mount the whole volume, without subPath`, { cause });
    }
    try {
      const [value, expiresAt, appID] = await Promise.all(
        ["access_token", "expires_at", "app_id"].map((name) => readFile(join(dir, snapshot, name), "ascii")),
      );
      return { value, expiresAt, appID };
    } catch (error) {
      if (error.code !== "ENOENT" || (await readlink(link)) === snapshot) {
        throw error; // with ENOENT, the file is not in the Secret
      }
    }
  }
}

// withToken calls WeChat with the current token. When WeChat does not accept it any more, a newer one is in the volume,
// or will be soon: it reads again and repeats the call once. It never fetches a token.
export async function withToken(dir, call) {
  const errcode = await call(await readToken(dir));
  if (![40001, 40014, 42001].includes(errcode)) {
    return errcode;
  }
  return call(await readToken(dir));
}

// docs:end

const dir = process.argv[2] ?? "/var/run/wechat";
for await (const line of createInterface({ input: process.stdin })) {
  const answers = line.trim().split(/\s+/).map(Number);
  const used = [];
  const errcode = await withToken(dir, async (token) => answers[used.push(token) - 1]);
  const { value, expiresAt, appID } = used.at(-1);
  // It prints the fingerprint of the token, never the token.
  const fingerprint = createHash("sha256").update(value).digest("hex").slice(0, 16);
  console.log(JSON.stringify({ fingerprint, expires_at: expiresAt, app_id: appID, calls: used.length, errcode }));
}
