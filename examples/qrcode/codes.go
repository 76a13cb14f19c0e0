// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// codes makes Mini Program codes with WeChat's getwxacodeunlimit.
type codes struct {
	options
	volume *volume
	client *http.Client
}

// maxPicture is the size of the largest picture in bytes. WeChat's have a few hundred KiB at most.
const maxPicture = 1 << 20

// refusal is what WeChat answers instead of a picture.
type refusal struct {
	Code    int    `json:"errcode"`
	Message string `json:"errmsg"`
}

func (r *refusal) Error() string {
	return fmt.Sprintf("WeChat answered errcode %d: %s", r.Code, r.Message)
}

// badToken says whether another token could help.
func (r *refusal) badToken() bool { return r.Code == 40001 || r.Code == 40014 || r.Code == 42001 }

// picture is the code for a scene, as an image. When WeChat does not accept the token any more, the volume may have a newer one: it
// is read again, and the call repeated once. A token is never fetched here.
func (c *codes) picture(ctx context.Context, scene string) (content []byte, kind string, err error) {
	t, err := c.volume.token()
	if err != nil {
		return nil, "", err
	}
	content, kind, err = c.ask(ctx, t, scene)
	if refused := (*refusal)(nil); errors.As(err, &refused) && refused.badToken() {
		if t, err = c.volume.read(); err != nil {
			return nil, "", err
		}
		return c.ask(ctx, t, scene)
	}
	return content, kind, err
}

// ask makes one call.
func (c *codes) ask(ctx context.Context, t token, scene string) (content []byte, kind string, err error) {
	body, err := json.Marshal(map[string]any{"scene": scene, "page": c.page, "check_path": false, "env_version": c.release})
	if err != nil {
		return nil, "", err
	}
	address := c.wechat + "/wxa/getwxacodeunlimit?access_token=" + url.QueryEscape(t.value)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, "", withoutURL(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return nil, "", withoutURL(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	content, err = io.ReadAll(io.LimitReader(res.Body, maxPicture+1))
	switch {
	case err != nil:
		return nil, "", err
	case len(content) > maxPicture:
		return nil, "", fmt.Errorf("WeChat's answer is larger than %d bytes", maxPicture)
	}
	// Only these: other kinds of pictures, such as SVG, can run a script in the browser.
	kind = res.Header.Get("Content-Type")
	if res.StatusCode == http.StatusOK && (kind == "image/png" || kind == "image/jpeg") {
		return content, kind, nil
	}
	// Errors come with HTTP 200 too, as JSON.
	var refused refusal
	if json.Unmarshal(content, &refused) != nil || refused.Code == 0 {
		return nil, "", fmt.Errorf("WeChat answered HTTP %d and no picture", res.StatusCode)
	}
	return nil, "", &refused
}

// withoutURL takes the URL out of an error of net/http: it holds the token.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return fmt.Errorf("calling WeChat: %w", u.Err)
	}
	return err
}
