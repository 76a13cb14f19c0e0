// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha1" // WeChat's documents ask for it
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// ticket is a jsapi_ticket. It prints as nothing, so that no log can show it.
type ticket struct{ value string }

// String hides the value from every way of printing.
func (ticket) String() string { return "[ticket]" }

// GoString hides it from %#v.
func (ticket) GoString() string { return "[ticket]" }

// sign returns the signature for the page at an address. Timestamp is in seconds since 1970. See "JS-SDK使用权限签名算法" in
// https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/JS-SDK.html.
func (t ticket) sign(nonce string, timestamp int64, address string) string {
	sum := sha1.Sum([]byte("jsapi_ticket=" + t.value + "&noncestr=" + nonce +
		"&timestamp=" + strconv.FormatInt(timestamp, 10) + "&url=" + address))
	return hex.EncodeToString(sum[:])
}

// dataLink is the link that the kubelet turns to a new folder when the Secret changes.
const dataLink = "..data"

var (
	validTicket = regexp.MustCompile(`^[0-9A-Za-z_-]{1,512}$`)
	validAppID  = regexp.MustCompile(`^wx[0-9a-z]{16}$`)
)

// readTicket reads appid and ticket as they are now. Both come from one folder, so the link is resolved once; a folder that vanishes
// meanwhile has a successor. No error holds what is in a file.
func readTicket(dir string) (appID string, t ticket, err error) {
	for {
		folder, err := os.Readlink(filepath.Join(dir, dataLink))
		if err != nil {
			return "", ticket{}, fmt.Errorf("%s is not a mounted Secret; mount the whole volume, without subPath: %w", dir, err)
		}
		appID, t, err = readFolder(filepath.Join(dir, folder))
		if !errors.Is(err, fs.ErrNotExist) {
			return appID, t, err
		}
		if now, _ := os.Readlink(filepath.Join(dir, dataLink)); now == folder {
			return "", ticket{}, err // the file is not in the Secret
		}
	}
}

func readFolder(dir string) (string, ticket, error) {
	appID, err1 := os.ReadFile(filepath.Join(dir, "app_id"))
	value, err2 := os.ReadFile(filepath.Join(dir, "jsapi_ticket"))
	if err := errors.Join(err1, err2); err != nil {
		return "", ticket{}, err
	}
	if !validAppID.Match(appID) {
		return "", ticket{}, errors.New("the file app_id holds no appid: it must be wx and 16 letters or digits, without a newline")
	}
	if !validTicket.Match(value) {
		return "", ticket{}, errors.New("the file jsapi_ticket holds no ticket: it must be letters, digits, - and _, without a newline")
	}
	return string(appID), ticket{string(value)}, nil
}
