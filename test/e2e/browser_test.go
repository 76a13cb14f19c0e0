// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/test/browser"
)

// screenshot returns what a person would see.
func screenshot(t *testing.T, url string) image.Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "page.png")
	browser.Screenshot(t, url, file)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if keep := os.Getenv("E2E_SCREENSHOT"); keep != "" {
		if err := os.WriteFile(keep, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// picture gets a picture of a code.
func picture(t *testing.T, url string) image.Image {
	t.Helper()
	res, err := (&http.Client{Timeout: 30 * time.Second}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "image/jpeg" {
		t.Fatalf("%s: %s, %s", url, res.Status, res.Header.Get("Content-Type"))
	}
	got, err := jpeg.Decode(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// shows says whether a page shows a picture at twice its size: every dot of eight, by its middle, at one place of the page.
func shows(page, picture image.Image) bool {
	const scale, dot = 2, 8
	size := picture.Bounds().Size()
	for y := range page.Bounds().Dy() - scale*size.Y + 1 {
	place:
		for x := range page.Bounds().Dx() - scale*size.X + 1 {
			for dy := dot / 2; dy < size.Y; dy += dot {
				for dx := dot / 2; dx < size.X; dx += dot {
					if dark(page.At(x+scale*dx, y+scale*dy)) != dark(picture.At(dx, dy)) {
						continue place
					}
				}
			}
			return true
		}
	}
	return false
}

func dark(c color.Color) bool { return color.GrayModel.Convert(c).(color.Gray).Y < 128 }
