// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

func refuses(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no") }

// A caller who waits for leave to send his body is refused at once.
func TestRefusalBeforeTheBody(t *testing.T) {
	c := streaming(t, refuses)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
}

// A body that the handler does not read must move, too.
func TestUnreadBodyThatStalls(t *testing.T) {
	c := streaming(t, refuses)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nx")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection is held: %v", err)
	}
}

// The deadline that a handler sets for a body holds, however well the body moves.
func TestDeadlineOfTheHandler(t *testing.T) {
	got := make(chan error, 1)
	c := streaming(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(stall))
		_, err := io.ReadAll(r.Body)
		got <- err
	})
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	for range 40 {
		time.Sleep(stall / 6)
		_, _ = io.WriteString(c, "x")
		select {
		case err := <-got:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the body ended with %v", err)
			}
			return
		default:
		}
	}
	t.Error("the body outlives the deadline")
}
