// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// A CA file that was changed counts for every later request, also on connections that are kept. One that cannot be used changes nothing,
// and whom that concerns is told.
func TestCAFileIsReadAgain(t *testing.T) {
	before, after := newAuthority(t, "Proxy CA 1"), newAuthority(t, "Proxy CA 2")
	leaf := func(*x509.Certificate) {}
	first, second := serveAs(t, sign(t, before, leaf)), serveAs(t, sign(t, after, leaf))
	for _, call := range allCalls {
		t.Run(call.name, func(t *testing.T) {
			file := writeFile(t, before.pem())
			clientTo := func(s *server) *Client { return newClient(t, Options{Endpoints: []string{s.URL}, CAFile: file}) }
			trustsFirst, trustsSecond := clientTo(first), clientTo(second)
			works := func(c *Client) {
				t.Helper()
				if _, err := call.do(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			fails := func(c *Client, says ...string) {
				t.Helper()
				_, err := call.do(t.Context(), c)
				e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
				wantText(t, e, append(says, "is unknown", "do not trust it")...)
				if strings.Contains(e.Message, "could not be read again") != (len(says) > 0) {
					t.Errorf("message %q", e.Message)
				}
			}
			reload := func(want bool, says string) {
				t.Helper()
				for _, c := range []*Client{trustsFirst, trustsSecond} {
					changed, err := c.ReloadCA()
					if changed != want || (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), file)) {
						t.Fatalf("changed %v, error %v, want %v, %q", changed, err, want, says)
					}
				}
			}
			works(trustsFirst)
			fails(trustsSecond)
			reload(false, "")

			for says, content := range map[string][]byte{
				"holds no PEM certificate": nil,
				"holds no PEM":             []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
				"was cut or damaged":       append(after.pem(), after.pem()[:200]...),
				"was cut or":               append([]byte("-----BEGIN CERTIFICATE-----\n"), after.pem()...),
				"certificate 2 in ":        append(after.pem(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: after.cert.Raw[:99]})...),
				"or damaged":               []byte(strings.Replace(string(after.pem()), "M", "!", 1)),
			} {
				write(t, file, content)
				reload(false, says)
				works(trustsFirst)
				fails(trustsSecond, "--wechat-ca-file could not be read again", says)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			reload(false, "no such file")
			fails(trustsSecond, "no such file")
			write(t, file, before.pem())
			reload(false, "")
			fails(trustsSecond)

			write(t, file, after.pem())
			reload(true, "")
			fails(trustsFirst)
			works(trustsSecond)
			write(t, file, append(before.pem(), after.pem()...))
			reload(true, "")
			works(trustsFirst)
			works(trustsSecond)
			reload(false, "")
		})
	}
}

// The kubelet changes a mounted file by a symbolic link to another directory.
func TestCAFileBehindALink(t *testing.T) {
	ca := newAuthority(t, "Proxy CA 2")
	s := serveAs(t, sign(t, ca, func(*x509.Certificate) {}))
	dir := t.TempDir()
	for name, content := range map[string][]byte{"1": newAuthority(t, "Proxy CA 1").pem(), "2": ca.pem()} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "ca.crt"), content)
	}
	link := filepath.Join(dir, "..data")
	if err := os.Symlink("1", link); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Options{Endpoints: []string{s.URL}, CAFile: filepath.Join(link, "ca.crt")})
	if _, err := c.StableToken(t.Context(), testAccount, false); err == nil {
		t.Error("the server is trusted")
	}
	if err := os.Symlink("2", link+"_tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.ReloadCA(); !changed || err != nil {
		t.Errorf("changed %v, error %v", changed, err)
	}
	if _, err := c.StableToken(t.Context(), testAccount, false); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Without the option there is nothing to read.
func TestNoCAFile(t *testing.T) {
	if changed, err := newClient(t, Options{}).ReloadCA(); changed || err != nil {
		t.Errorf("changed %v, error %v", changed, err)
	}
}

// A CA file may become anything. A pipe must not keep those waiting who ask why a certificate is not trusted, and a large file must not
// fill the memory.
func TestCAFileThatIsNoFile(t *testing.T) {
	ca := newAuthority(t, "Proxy CA 1")
	s := serveAs(t, sign(t, ca, func(*x509.Certificate) {}))
	for name, tt := range map[string]struct {
		replace func(file string) error
		says    string
	}{
		"directory":  {func(file string) error { return os.Mkdir(file, 0o700) }, "is not a regular file"},
		"pipe":       {func(file string) error { return syscall.Mkfifo(file, 0o600) }, "is not a regular file"},
		"large file": {func(file string) error { return os.WriteFile(file, make([]byte, 5<<20), 0o600) }, "is larger than 4 MiB"},
	} {
		file := writeFile(t, ca.pem())
		c := newClient(t, Options{Endpoints: []string{s.URL}, CAFile: file})
		if err := errors.Join(os.Remove(file), tt.replace(file)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if changed, err := c.ReloadCA(); changed || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: changed %v, error %v, want %q", name, changed, err, tt.says)
			}
			if err := c.caProblem(); err == nil {
				t.Errorf("%s: no problem is known", name)
			}
			if _, err := c.StableToken(t.Context(), testAccount, false); err != nil {
				t.Error(err)
			}
			if _, err := New(Options{Endpoints: []string{s.URL}, CAFile: file}); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: a new client: %v, want %q", name, err, tt.says)
			}
		}()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the file is still being read", name)
		}
	}
}
