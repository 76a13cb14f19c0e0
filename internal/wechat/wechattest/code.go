// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"crypto/sha256"
	"image"
	"image/color"
	"image/png"
)

// codePNG is a picture for a scene: the same for the same scene, and only for that. No scanner reads it.
func codePNG(scene string) []byte {
	const dots, dot = 16, 8 // 256 dots, one for each bit of SHA-256
	sum := sha256.Sum256([]byte(scene))
	picture := image.NewPaletted(image.Rect(0, 0, (dots+2)*dot, (dots+2)*dot), color.Palette{color.White, color.Black})
	for y := range dots * dot {
		for x := range dots * dot {
			n := y/dot*dots + x/dot
			picture.SetColorIndex(x+dot, y+dot, sum[n/8]>>(n%8)&1)
		}
	}
	var out bytes.Buffer
	_ = png.Encode(&out, picture) // a buffer takes everything
	return out.Bytes()
}
