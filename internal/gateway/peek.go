// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"io"
	"net/http"
	"strconv"
)

// peekSize is how much of an answer is looked at for an errcode, in bytes. No more is ever held back for it.
const peekSize = 512

// peek reads the beginning of an answer until it is known whether it is a JSON object with an errcode, and records the errcode. WeChat
// writes JSON under many a Content-Type. An encoded answer is not looked at.
func (x *exchange) peek(res *http.Response) error {
	x.filled, x.ended, x.call.Errcode = 0, nil, 0
	if res.Header.Get("Content-Encoding") != "" {
		return nil
	}
	for x.ended == nil {
		n, err := res.Body.Read(x.chunk[x.filled:])
		x.filled, x.ended = x.filled+n, err
		code, found, more := errcodeOf(x.chunk[:min(x.filled, peekSize)], err != nil)
		if found {
			x.call.Errcode = code
		}
		if !more || x.filled >= peekSize {
			break
		}
	}
	if x.call.Errcode != 0 { // all of it, so that the connection can be used again while another token is waited for
		for x.ended == nil && x.filled < peekSize {
			n, err := res.Body.Read(x.chunk[x.filled:])
			x.filled, x.ended = x.filled+n, err
		}
	}
	if x.ended == nil || x.ended == io.EOF { //nolint:errorlint // a reader returns it as it is
		return nil
	}
	return &answerError{x.ended}
}

// answerError says that the beginning of an answer could not be read. Its text does not say why: net/http quotes what it cannot parse, and
// WeChat's bytes may hold the token.
type answerError struct{ cause error }

func (*answerError) Error() string { return "the answer broke off, or is no HTTP" }

func (e *answerError) Unwrap() error { return e.cause }

// errcodeOf looks for a member errcode of a JSON object that begins with b, and only for one of the object itself, not of what is in it.
// more reports that nothing can be said yet, which is never the case if b is the whole answer.
func errcodeOf(b []byte, whole bool) (code int, found, more bool) {
	s := jsonScanner{b: b}
	s.space()
	if !s.next('{') {
		return 0, false, s.cut && !whole
	}
	for first := true; ; first = false {
		s.space()
		if !first && !s.next(',') {
			break
		}
		s.space()
		key := s.text()
		s.space()
		if key == nil || !s.next(':') {
			break
		}
		s.space()
		if string(key) != "errcode" {
			s.value()
			continue
		}
		number := s.literal()
		if s.cut && !whole {
			break
		}
		if code, err := strconv.Atoi(string(number)); err == nil {
			return code, true, false
		}
		return 0, false, false
	}
	return 0, false, s.cut && !whole
}

// jsonScanner reads the beginning of a JSON text. It does not check what it skips.
type jsonScanner struct {
	b []byte
	i int
	// cut reports that the end was reached.
	cut bool
}

// peek returns the next byte; 0 at the end.
func (s *jsonScanner) peek() byte {
	if s.i >= len(s.b) {
		s.cut = true
		return 0
	}
	return s.b[s.i]
}

func (s *jsonScanner) space() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// next skips a byte and reports whether it was there.
func (s *jsonScanner) next(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

// text returns what stands between quotes, with its escapes; nil if there is none.
func (s *jsonScanner) text() []byte {
	if !s.next('"') {
		return nil
	}
	for begin := s.i; ; s.i++ {
		switch s.peek() {
		case '"':
			s.i++
			return s.b[begin : s.i-1]
		case '\\':
			s.i++
		case 0:
			if s.cut {
				return nil
			}
		}
	}
}

// literal returns a number or a word.
func (s *jsonScanner) literal() []byte {
	begin := s.i
	for {
		switch c := s.peek(); {
		case c == '-' || c == '+' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			s.i++
		default:
			return s.b[begin:s.i]
		}
	}
}

// value skips a value.
func (s *jsonScanner) value() {
	depth := 0
	for {
		switch c := s.peek(); c {
		case '"':
			if s.text() == nil {
				return
			}
		case '{', '[':
			depth++
			s.i++
		case '}', ']':
			if depth--; depth < 0 {
				return // of the object around
			}
			s.i++
		case ',', ':', ' ', '\t', '\r', '\n':
			s.i++
		default:
			if len(s.literal()) == 0 {
				s.i = len(s.b) // no JSON
				return
			}
		}
		if depth == 0 {
			return
		}
	}
}
