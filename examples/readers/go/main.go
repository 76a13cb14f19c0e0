// SPDX-License-Identifier: Apache-2.0

// Command go reads WeChat's access token from a mounted Secret, anew for each call:
//
//	go run ./examples/readers/go /var/run/wechat
//
// Each line on standard input stands for one call of WeChat's API. It has the errcodes that WeChat answers, 0 for success.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Token is a token and what belongs to it. Do not keep it for longer than a minute, and do not log Value.
type Token struct {
	Value     string
	ExpiresAt time.Time
	AppID     string
}

// docs:start

// ReadToken reads token and expiry from one snapshot of the volume. The kubelet replaces the folder behind the link
// ..data as a whole, so the link is resolved once. A folder that vanishes meanwhile has a successor.
func ReadToken(dir string) (Token, error) {
	for {
		snapshot, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			return Token{}, fmt.Errorf("%s is not a mounted Secret; mount the whole volume, without subPath: %w", dir, err)
		}
		token, err := readSnapshot(filepath.Join(dir, snapshot))
		if !errors.Is(err, fs.ErrNotExist) {
			return token, err
		}
		if now, _ := os.Readlink(filepath.Join(dir, "..data")); now == snapshot {
			return Token{}, err // the file is not in the Secret
		}
	}
}

func readSnapshot(dir string) (Token, error) {
	value, err1 := os.ReadFile(filepath.Join(dir, "access_token"))
	expiry, err2 := os.ReadFile(filepath.Join(dir, "expires_at"))
	appID, err3 := os.ReadFile(filepath.Join(dir, "app_id"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return Token{}, err
	}
	expiresAt, err := time.Parse(time.RFC3339, string(expiry))
	return Token{Value: string(value), ExpiresAt: expiresAt, AppID: string(appID)}, err
}

// WithToken calls WeChat with the current token. When WeChat does not accept it any more, a newer one is in the volume,
// or will be soon: it reads again and repeats the call once. It never fetches a token.
func WithToken(dir string, call func(Token) (errcode int)) (int, error) {
	token, err := ReadToken(dir)
	if err != nil {
		return 0, err
	}
	errcode := call(token)
	switch errcode {
	case 40001, 40014, 42001:
		if token, err = ReadToken(dir); err != nil {
			return errcode, err
		}
		return call(token), nil
	}
	return errcode, nil
}

// docs:end

func main() {
	dir := "/var/run/wechat"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := once(dir, strings.Fields(lines.Text())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// once makes one call, with answers that are given, and prints which token it used last: its fingerprint, never itself.
func once(dir string, answers []string) error {
	var used Token
	calls := 0
	errcode, err := WithToken(dir, func(t Token) int {
		used = t
		calls++
		n, _ := strconv.Atoi(answers[calls-1])
		return n
	})
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(used.Value))
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"fingerprint": hex.EncodeToString(sum[:8]), "expires_at": used.ExpiresAt.Format(time.RFC3339), "app_id": used.AppID,
		"calls": calls, "errcode": errcode,
	})
}
