// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"crypto/sha256"
	"image"
	"image/color"
	"image/jpeg"
)

// codeJPEG returns codeImage as a JPEG.
func codeJPEG(scene string) []byte {
	var out bytes.Buffer
	_ = jpeg.Encode(&out, codeImage(scene), nil) // never fails for a buffer
	return out.Bytes()
}

// codeImage returns a picture that is determined by the scene and differs between scenes. No scanner can read it.
func codeImage(scene string) image.Image {
	const dots, dot = 16, 8 // 16 by 16 dots of 8 by 8 pixels, one dot for each bit of the hash
	sum := sha256.Sum256([]byte(scene))
	picture := image.NewPaletted(image.Rect(0, 0, (dots+2)*dot, (dots+2)*dot), color.Palette{color.White, color.Black})
	for y := range dots * dot {
		for x := range dots * dot {
			n := y/dot*dots + x/dot
			picture.SetColorIndex(x+dot, y+dot, sum[n/8]>>(n%8)&1)
		}
	}
	return picture
}
