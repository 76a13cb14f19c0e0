// SPDX-License-Identifier: Apache-2.0
"use strict";

(() => {
  const scriptURL = document.currentScript.dataset.script;

  function show(state, text) {
    const line = document.getElementById("state");
    line.dataset.state = state;
    line.textContent = text;
  }

  // The address as the browser has it: WeChat adds parameters to pages that are shared, and leaves out the fragment.
  async function getSignature() {
    const page = location.href.split("#")[0];
    const answer = await fetch("signature?url=" + encodeURIComponent(page), { cache: "no-store" });
    if (!answer.ok) {
      throw new Error(await answer.text());
    }
    return answer.json();
  }

  // Not a script element in the page: its failure would not be told, and it could take minutes.
  function loadScript() {
    return new Promise((resolve, reject) => {
      const failed = () => reject(new Error("WeChat's script cannot be reached: " + scriptURL));
      const script = document.createElement("script");
      script.onload = () => (window.wx ? resolve() : failed());
      script.onerror = failed;
      setTimeout(failed, 10000);
      script.src = scriptURL;
      document.head.appendChild(script);
    });
  }

  function configure(signature) {
    wx.ready(() => {
      show("ready", "WeChat accepts the signature.");
      const button = document.getElementById("scan");
      button.disabled = false;
      button.onclick = () => wx.scanQRCode({
        needResult: 1,
        success: (found) => { document.getElementById("result").textContent = found.resultStr; },
      });
    });
    wx.error((refusal) => show("error", "WeChat refuses: " + refusal.errMsg));
    wx.config({
      appId: signature.appId,
      timestamp: signature.timestamp,
      nonceStr: signature.nonceStr,
      signature: signature.signature,
      jsApiList: ["scanQRCode"],
    });
  }

  Promise.all([getSignature(), loadScript()])
    .then(([signature]) => configure(signature))
    .catch((error) => show("error", error.message));
})();
