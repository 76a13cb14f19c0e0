// SPDX-License-Identifier: Apache-2.0

// This program calls WeChat with silenceper/wechat and the token in a mounted Secret. The SDK never fetches a token.
//
// It serves GET /callback-ips, a call with the token, and GET /signature?url=…, a signature for JS-SDK with the jsapi_ticket
// in the same Secret. These environment variables configure it:
//
//   - WECHAT_DIR is the folder where the Secret is mounted, by default /var/run/wechat.
//   - LISTEN is the address to serve at, by default :8080.
//   - WECHAT_APP_SECRET is the AppSecret. Only logins need it, so it may be empty.
//   - WECHAT_ENDPOINT replaces https://api.weixin.qq.com in tests.
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
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/officialaccount"
	"github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/util"
)

// docs:start

// mounted is the folder where the Secret is mounted. It is the SDK's AccessTokenHandle and JsTicketHandle, which the SDK asks
// before each call.
type mounted string

// GetAccessToken returns the token of this moment.
func (m mounted) GetAccessToken() (string, error) { return m.read("access_token") }

// GetTicket returns the ticket of this moment. It does not need the token that the SDK passes.
func (m mounted) GetTicket(string) (string, error) { return m.read("jsapi_ticket") }

// read reads a file by its path, because the kubelet replaces the folder that holds it. If that happens between two steps of the
// path, the second attempt finds the new one.
func (m mounted) read(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(string(m), name))
	if err != nil {
		content, err = os.ReadFile(filepath.Join(string(m), name))
	}
	return string(content), err
}

// newAccount returns an account of the SDK that fetches neither tokens nor tickets. The SDK insists on a cache, which stays empty.
func newAccount(m mounted, appID, appSecret string) *officialaccount.OfficialAccount {
	account := officialaccount.NewOfficialAccount(&config.Config{AppID: appID, AppSecret: appSecret, Cache: cache.NewMemory()})
	account.SetAccessTokenHandle(m)
	account.GetJs().SetJsTicketHandle(m)
	return account
}

var errRefused = errors.New("WeChat refuses the token in the volume, and there is no newer one yet")

// Most errors of the SDK have the errcode in their text only. Those of net/http have the whole URL in it, with the token.
var (
	refused = regexp.MustCompile(`errcode=(40001|40014|42001)\b`)
	secrets = regexp.MustCompile(`(access_token|secret)=[^&"\s]*`)
)

// call calls WeChat. When WeChat refuses the token, it reads the file again. It repeats the call once if there is another token,
// and otherwise returns errRefused. It never fetches a token.
func (m mounted) call(do func() error) error {
	for range 2 {
		used, err := m.GetAccessToken()
		if err != nil {
			return err
		}
		err = do()
		if err == nil {
			return nil
		}
		if !refused.MatchString(err.Error()) {
			return errors.New(secrets.ReplaceAllString(err.Error(), "$1=…"))
		}
		if current, err := m.GetAccessToken(); err != nil || current == used {
			return errRefused
		}
	}
	return errRefused
}

// docs:end

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	if endpoint := os.Getenv("WECHAT_ENDPOINT"); endpoint != "" {
		util.SetURIModifier(func(uri string) string { return strings.Replace(uri, "https://api.weixin.qq.com", endpoint, 1) })
	}
	util.DefaultHTTPClient = &http.Client{Timeout: 10 * time.Second}
	m := mounted(cmp.Or(os.Getenv("WECHAT_DIR"), "/var/run/wechat"))
	appID, err := m.read("app_id")
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", cmp.Or(os.Getenv("LISTEN"), ":8080"))
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := http.Server{Handler: handler(m, newAccount(m, appID, os.Getenv("WECHAT_APP_SECRET"))), ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(listener)
}

func handler(m mounted, account *officialaccount.OfficialAccount) http.Handler {
	// The SDK makes both on first use and without a lock.
	basic, js := account.GetBasic(), account.GetJs()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback-ips", func(w http.ResponseWriter, _ *http.Request) {
		var list []string
		err := m.call(func() (err error) {
			list, err = basic.GetCallbackIP()
			return err
		})
		answer(w, map[string]any{"ip_list": list}, err)
	})
	mux.HandleFunc("GET /signature", func(w http.ResponseWriter, r *http.Request) {
		signed, err := js.GetConfig(r.URL.Query().Get("url"))
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, map[string]any{
			"appId": signed.AppID, "timestamp": signed.Timestamp, "nonceStr": signed.NonceStr, "signature": signed.Signature,
		}, nil)
	})
	return mux
}

// answer answers with 503 while WeChat refuses the token, so that the caller tries again, and with 502 after other errors.
func answer(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	switch {
	case errors.Is(err, errRefused):
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "10")
	case err != nil:
		status = http.StatusBadGateway
	}
	if err != nil {
		log.Print(err)
		body = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
