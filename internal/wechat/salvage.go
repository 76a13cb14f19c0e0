// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Names and values in the text of an answer that is not the expected JSON. Something on the way may have wrapped, escaped or cut it.
// A number counts only if another character follows it, because it could be cut otherwise.
var (
	shownErrcode = regexp.MustCompile(`(?i)\berrcode` + quoting + `*[:=>]` + quoting + `*` +
		`([+-]?[0-9]{1,10}(?:\.[0-9]{1,10})?(?:e[+-]?[0-9]{1,3})?)[^0-9a-z.+-]`)
	shownErrmsg = regexp.MustCompile(`(?i)\berrmsg` + quoting + `*[:=>]` + quoting + `*`)
	shownToken  = regexp.MustCompile(`(?i)\baccess_token` + shownValue)
	shownTicket = regexp.MustCompile(`(?i)\bticket` + shownValue)
)

const (
	quoting    = `(?:[\s"'\\\[]|&quot;|&#34;)`
	shownValue = quoting + `*[:=>]` + quoting + `*([^\s"'\\,&<>{}\[\]]+)`
)

// salvage returns the refusal that the text of an answer shows, wherever it does, if it shows an errcode other than 0.
func salvage(body []byte) (answer, bool) {
	text := legible(body)
	if !bytes.Contains(bytes.ToLower(text), []byte("errcode")) && !bytes.ContainsRune(text, '\\') {
		return answer{}, false // the usual case, which is cheap to detect
	}
	// Often nothing but a character is wrong.
	o, _ := members(text)
	if a, ok := o.refusal(); ok {
		a.salvaged = true
		return a, true
	}
	for _, found := range shownErrcode.FindAllSubmatch(text, -1) {
		code, ok := readErrcode(string(found[1]))
		if !ok {
			continue
		}
		a := answer{code: code, salvaged: true}
		if at := shownErrmsg.FindIndex(text); at != nil {
			// Where it ends cannot be known.
			a.errmsg = strings.TrimRight(string(text[at[1]:]), " \"'}])>;")
		}
		if found := shownToken.FindSubmatch(text); found != nil {
			a.token = token.NewValue(string(found[1]))
		}
		if found := shownTicket.FindSubmatch(text); found != nil {
			a.ticket = token.NewValue(string(found[1]))
		}
		return a, true
	}
	return answer{}, false
}

// readErrcode returns the errcode that a text stands for, whatever number format it has. It returns false for 0, and if the text stands
// for no number of 32 bits, which is how the status stores it.
func readErrcode(text string) (int, bool) {
	code, err := strconv.ParseFloat(text, 64)
	if err != nil || code == 0 || code != math.Trunc(code) || code < math.MinInt32 || code > math.MaxInt32 {
		return 0, false
	}
	return int(code), true
}

// legible returns a text in UTF-8 or another charset that contains ASCII, without byte order mark and control characters. Without the
// NULs, the ASCII characters of UTF-16 and UTF-32 become legible.
func legible(body []byte) []byte {
	for _, order := range []interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}{binary.LittleEndian, binary.BigEndian} {
		if mark := order.AppendUint16(nil, 0xfeff); bytes.HasPrefix(body, mark) {
			body = fromUTF16(body[len(mark):], order)
			break
		}
	}
	text := make([]byte, 0, len(body))
	for _, c := range bytes.ReplaceAll(body, []byte("\ufeff"), nil) {
		switch {
		case c == 0:
		case c < ' ' || c == 0x7f:
			text = append(text, ' ')
		default:
			text = append(text, c)
		}
	}
	return text
}

func fromUTF16(body []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, 0, len(body)/2)
	for ; len(body) >= 2; body = body[2:] {
		units = append(units, order.Uint16(body))
	}
	return []byte(string(utf16.Decode(units)))
}

var gzipMagic = []byte{0x1f, 0x8b}

// readBody reads the body of an answer, and decompresses it if it is compressed by gzip, which the client does not ask for. It reads at
// most maxBody+1 bytes, and decompresses no more than that. With an error it returns what precedes the error.
func readBody(body io.Reader) ([]byte, error) {
	raw, err := readLimited(body)
	if !bytes.HasPrefix(raw, gzipMagic) {
		return raw, err
	}
	z, broken := gzip.NewReader(bytes.NewReader(raw))
	if broken != nil {
		return nil, errors.Join(err, errGzip)
	}
	plain, broken := readLimited(z)
	switch {
	case err != nil:
		return plain, err
	case broken != nil && !errors.Is(broken, errTooLarge):
		return plain, errGzip
	}
	return plain, broken
}

// readLimited reads to the end, or returns errTooLarge with the first maxBody bytes.
func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if len(data) > maxBody {
		return data[:maxBody], errTooLarge
	}
	return data, err
}
