// SPDX-License-Identifier: Apache-2.0
"use strict";

// A stand-in for WeChat's JS-SDK. It asks the server that it came from whether the configuration of the page is right, where WeChat's own
// script asks the app around the page.
(() => {
  const check = new URL("/check", document.currentScript.src);
  const waiting = [];
  let result = null; // of wx.config: {errMsg}
  let onError = () => {};

  const accepted = () => result !== null && result.errMsg === "config:ok";

  function settle(outcome) {
    result = outcome;
    if (accepted()) {
      waiting.splice(0).forEach((call) => call());
    } else {
      onError(result);
    }
  }

  window.wx = {
    config(configuration) {
      const page = Object.assign({}, configuration, { url: location.href.split("#")[0] });
      // Plain text needs no permission of the server.
      fetch(check, { method: "POST", headers: { "Content-Type": "text/plain" }, body: JSON.stringify(page) })
        .then((answer) => answer.json())
        .then(settle, (error) => settle({ errMsg: "config:fail " + error }));
    },
    ready(call) {
      if (accepted()) {
        call();
      } else {
        waiting.push(call);
      }
    },
    error(call) {
      onError = call;
    },
  };
})();
