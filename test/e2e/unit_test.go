// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"image"
	"image/color"
	"testing"
	"time"
)

// What a step judges by is judged here, so that it can fail.
func TestShows(t *testing.T) {
	code := image.NewGray(image.Rect(0, 0, 144, 144))
	for y := range 144 {
		for x := range 144 {
			if (x/8)*(y/8)%3 == 0 {
				code.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	page := image.NewGray(image.Rect(0, 0, 400, 500))
	for i := range page.Pix {
		page.Pix[i] = 255
	}
	if shows(page, code) {
		t.Error("a white page shows it")
	}
	for y := range 288 {
		for x := range 288 {
			page.Set(x+57, y+101, code.At(x/2, y/2))
		}
	}
	if !shows(page, code) {
		t.Error("it is not found")
	}
	for y := range 16 {
		for x := range 16 {
			page.Set(57+272+x, 101+272+y, color.Gray{Y: 255 - code.GrayAt(140, 140).Y})
		}
	}
	if shows(page, code) {
		t.Error("one dot is wrong, and it is found")
	}
}

func TestQuantile(t *testing.T) {
	var samples []time.Duration
	for n := range 100 {
		samples = append(samples, time.Duration(100-n)*time.Second)
	}
	if p50, p99 := quantile(samples, 0.5), quantile(samples, 0.99); p50 != 51*time.Second || p99 != 100*time.Second {
		t.Errorf("p50 %s, p99 %s", p50, p99)
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}
