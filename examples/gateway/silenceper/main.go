// SPDX-License-Identifier: Apache-2.0

// This program calls WeChat through the gateway with an unmodified silenceper/wechat. It has neither the AppSecret nor a token of
// WeChat's.
//
// It serves GET /call, a call with the token; GET /image, a picture of a code for a mini program; and GET /login?code=…, a login.
// These environment variables configure it:
//
//   - WECHAT_DIR is the folder where the client's key Secret is mounted, by default /var/run/wechat.
//   - SSL_CERT_FILE is the file ca.crt of that folder, where the gateway has a private CA.
//   - LISTEN is the address to serve at, by default :8080.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/miniprogram"
	"github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/qrcode"
	"github.com/silenceper/wechat/v2/util"
)

// docs:start

// gateway sends the SDK's calls to the gateway. util.SetURIModifier would not do: some calls of the SDK, such as the one for a mini
// program's code, ignore it.
type gateway struct {
	host *url.URL
}

// RoundTrip implements http.RoundTripper.
func (g gateway) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == "api.weixin.qq.com" {
		r = r.Clone(r.Context())
		r.URL.Scheme, r.URL.Host, r.Host = g.host.Scheme, g.host.Host, ""
	}
	return http.DefaultTransport.RoundTrip(r)
}

// newApp returns an app of the SDK that calls the gateway, also to fetch tokens and to log users in.
func newApp(dir string) (*miniprogram.MiniProgram, error) {
	values := map[string]string{}
	for _, name := range []string{"host", "app_id", "app_secret"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		values[name] = string(content)
	}
	host, err := url.Parse(values["host"])
	if err != nil {
		return nil, err
	}
	wc := wechat.NewWechat()
	wc.SetHTTPClient(&http.Client{Transport: gateway{host}, Timeout: 30 * time.Second})
	return wc.GetMiniProgram(&config.Config{
		AppID: values["app_id"], AppSecret: values["app_secret"], Cache: cache.NewMemory(), UseStableAK: true,
	}), nil
}

// docs:end

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	app, err := newApp(cmp.Or(os.Getenv("WECHAT_DIR"), "/var/run/wechat"))
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", cmp.Or(os.Getenv("LISTEN"), ":8080"))
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := http.Server{Handler: handler(app), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}

func handler(app *miniprogram.MiniProgram) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /call", func(w http.ResponseWriter, _ *http.Request) {
		// The SDK has no call of a mini program without arguments, so the token that it fetched is used with its own HTTP functions.
		tok, err := app.GetContext().GetAccessToken()
		var body []byte
		if err == nil {
			body, err = util.HTTPGet("https://api.weixin.qq.com/cgi-bin/getcallbackip?access_token=" + tok)
		}
		if err == nil {
			err = util.DecodeWithCommonError(body, "GetCallbackIP")
		}
		answer(w, map[string]any{"answer": json.RawMessage(body)}, err)
	})
	mux.HandleFunc("GET /image", func(w http.ResponseWriter, _ *http.Request) {
		image, err := app.GetQRCode().GetWXACodeUnlimit(qrcode.QRCoder{Scene: "id=1", Page: "pages/index"})
		answer(w, map[string]any{"bytes": len(image)}, err)
	})
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		session, err := app.GetAuth().Code2Session(r.URL.Query().Get("code"))
		answer(w, map[string]any{"openid": session.OpenID}, err)
	})
	return mux
}

// Errors of net/http have the whole URL in their text, with the key.
var secrets = regexp.MustCompile(`(access_token|secret)=[^&"\s]*`)

func answer(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		status = http.StatusBadGateway
		err = errors.New(secrets.ReplaceAllString(err.Error(), "$1=…"))
		log.Print(err)
		body = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
