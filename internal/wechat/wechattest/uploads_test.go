// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// post sends a body with a type, without its length if chunked.
func (f *fixture) post(path, contentType string, body io.Reader, chunked bool) answer {
	f.t.Helper()
	if chunked {
		body = struct{ io.Reader }{body} // hides its length
	}
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.URL()+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	res, err := f.http.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing is written
	a := answer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		f.t.Fatal(err)
	}
	return a
}

// form returns a multipart body with a file in a field.
func form(t *testing.T, field string, file []byte) (contentType string, body *bytes.Buffer) {
	t.Helper()
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	part, err := w.CreateFormFile(field, "cat.jpg")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), body
}

func TestUpload(t *testing.T) {
	f := newFixture(t, Options{})
	path := "/cgi-bin/media/upload?access_token=" + f.stable(appID).Token + "&type="
	file := bytes.Repeat([]byte("cat"), 3<<20) // 9 MiB
	for _, tc := range []struct {
		what, path, field string
		file              []byte
		want              string
	}{
		{"good", path + "image", "media", file, `"media_id":"`},
		{"no token", "/cgi-bin/media/upload?type=image", "media", file, `"errcode":41001,`},
		{"unknown type", path + "cat", "media", file, `"errcode":40004,`},
		{"another field", path + "image", "file", file, `"errcode":41005,`},
		{"empty", path + "image", "media", nil, `"errcode":41005,`},
		{"too large", path + "thumb", "media", file, `"errcode":45001,`},
	} {
		contentType, body := form(t, tc.field, tc.file)
		if a := f.post(tc.path, contentType, body, false); !strings.Contains(string(a.body), tc.want) {
			t.Errorf("%s: %s, want %s", tc.what, a.body, tc.want)
		}
	}
	if a := f.post(path+"image", "image/jpeg", bytes.NewReader(file), false); !strings.Contains(string(a.body), `"errcode":41005,`) {
		t.Errorf("a file that is no form: %s", a.body)
	}
	if a := f.must(http.MethodGet, path+"image", ""); a.code() != codeWantPOST {
		t.Errorf("GET: %s", a.body)
	}
	admin := httptest.NewServer(f.AdminHandler())
	defer admin.Close()
	uploads, err := NewRemote(admin.URL).Uploads(t.Context(), appID)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	want := Upload{
		AppID: appID, Type: "image", FileName: "cat.jpg", ContentType: "application/octet-stream",
		Size: int64(len(file)), SHA256: hex.EncodeToString(sum[:]),
	}
	if len(uploads) != 1 || uploads[0].MediaID == "" {
		t.Fatalf("recorded %+v", uploads)
	}
	if want.MediaID = uploads[0].MediaID; uploads[0] != want {
		t.Errorf("recorded %+v, want %+v", uploads[0], want)
	}
	if got := f.Uploads(other); got != nil {
		t.Errorf("another app has %+v", got)
	}
}

// A body without its length is refused on every path, as WeChat's front end does.
func TestChunked(t *testing.T) {
	f := newFixture(t, Options{})
	token := f.stable(appID).Token
	contentType, body := form(t, "media", []byte("cat"))
	if a := f.post("/cgi-bin/media/upload?type=image&access_token="+token, contentType, body, true); a.status != http.StatusPreconditionFailed {
		t.Errorf("an upload: HTTP %d", a.status)
	}
	for _, path := range []string{"/cgi-bin/stable_token", "/cgi-bin/message/custom/send?access_token=" + token} {
		body := stableBody(appID, false)
		if a := f.post(path, "application/json", strings.NewReader(body), true); a.status != http.StatusPreconditionFailed {
			t.Errorf("%s: HTTP %d, %s", path, a.status, a.body)
		}
		if a := f.post(path, "application/json", strings.NewReader(body), false); a.status != http.StatusOK {
			t.Errorf("%s with its length: HTTP %d, %s", path, a.status, a.body)
		}
	}
	if got := f.Uploads(""); got != nil {
		t.Errorf("recorded %+v", got)
	}
}

func TestPageCode(t *testing.T) {
	f := newFixture(t, Options{})
	path := "/wxa/getwxacode?access_token=" + f.stable(appID).Token
	a := f.post(path, "application/json", strings.NewReader(`{"path":"pages/index"}`), false)
	if got := a.header.Get("Content-Type"); got != "image/jpeg" {
		t.Errorf("Content-Type %s", got)
	}
	if _, err := jpeg.Decode(bytes.NewReader(a.body)); err != nil {
		t.Error(err)
	}
	for body, want := range map[string]int{"": codeNotJSON, "{}": codeInvalidPath} {
		if got := f.must(http.MethodPost, path, body).code(); got != want {
			t.Errorf("%q: errcode %d, want %d", body, got, want)
		}
	}
	if got := f.must(http.MethodGet, path, "").code(); got != codeWantPOST {
		t.Errorf("GET: errcode %d", got)
	}
}

func TestMessage(t *testing.T) {
	f := newFixture(t, Options{})
	path := "/cgi-bin/message/custom/send?access_token=" + f.stable(appID).Token
	if a := f.must(http.MethodPost, path, `{"touser":"o-me"}`); string(a.body) != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("answered %s", a.body)
	}
	if got := f.must(http.MethodGet, path, "").code(); got != codeWantPOST {
		t.Errorf("GET: errcode %d", got)
	}
}
