// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

//go:embed page.html
var pageHTML string

// validScene is what WeChat allows: at most 32 of these characters.
var validScene = regexp.MustCompile(`^[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]{1,32}$`)

const defaultScene = "table=7"

// newHandler serves the page at /, the picture at /code?scene=…, and the probes.
func newHandler(c *codes, log *slog.Logger) http.Handler {
	page := template.Must(template.New("page").Parse(pageHTML))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		scene := r.URL.Query().Get("scene")
		if scene == "" {
			scene = defaultScene
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'")
		if err := page.Execute(w, map[string]any{"Scene": scene, "Valid": validScene.MatchString(scene)}); err != nil {
			log.Warn("writing the page", "error", err)
		}
	})
	turns := make(chan struct{}, maxPictures)
	mux.HandleFunc("GET /code", func(w http.ResponseWriter, r *http.Request) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
			serveCode(w, r, c, log)
		case <-time.After(maxWait):
			w.Header().Set("Retry-After", "10")
			http.Error(w, "too many codes are being made", http.StatusServiceUnavailable)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if t, err := c.volume.token(); err != nil || time.Now().After(t.expiresAt) {
			http.Error(w, "there is no token that is valid", http.StatusServiceUnavailable)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Browsers must not guess that an answer is something else than its Content-Type says.
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func serveCode(w http.ResponseWriter, r *http.Request, c *codes, log *slog.Logger) {
	// Not FormValue, which would read a form of 32 MiB from the body.
	scene := r.URL.Query().Get("scene")
	if !validScene.MatchString(scene) {
		http.Error(w, "scene must be 1 to 32 letters, digits or !#$&'()*+,/:;=?@-._~", http.StatusBadRequest)
		return
	}
	content, kind, err := c.picture(r.Context(), scene)
	if err != nil {
		log.Warn("no code", "error", err)
		status := http.StatusBadGateway
		if refused := (*refusal)(nil); !errors.As(err, &refused) {
			status = http.StatusServiceUnavailable
		}
		http.Error(w, "WeChat gave no code, see the log", status)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	// The code of a scene stays the same.
	w.Header().Set("Cache-Control", "private, max-age=3600")
	_, _ = w.Write(content) // fails when the caller is gone
}
