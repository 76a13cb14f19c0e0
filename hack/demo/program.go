// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// program is a running program that uses the SDK, with what its pod would have.
type program struct {
	*child

	// dir is all that it has of the file system, and env its environment.
	dir string
	env []string
	// address is where it serves.
	address string
	client  *http.Client
	// inFlight are the calls that it has not answered yet.
	inFlight sync.WaitGroup
}

// startProgram mounts the key Secret and starts the program with that alone.
func (s *stage) startProgram(ctx context.Context) (*program, error) {
	s.relay.started++
	name := fmt.Sprintf("program-%d", s.relay.started)
	p := &program{dir: filepath.Join(s.dir, name), client: &http.Client{Timeout: 30 * time.Second}}
	volume := filepath.Join(p.dir, "wechat")
	secret, err := s.keySecret(ctx)
	if err != nil {
		return nil, err
	}
	if err := mount(secret, volume); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(s.relays.program)
	if err != nil {
		return nil, fmt.Errorf("finding the program: %w", err)
	}
	cmd := exec.Command(path) //nolint:gosec,noctx // the caller's binary; close ends it
	cmd.Dir, cmd.Env = p.dir, []string{"WECHAT_DIR=" + volume, "LISTEN=127.0.0.1:0"}
	p.env = cmd.Environ()
	if p.child, err = s.startChild(name, cmd); err != nil {
		return nil, err
	}
	err = s.eventually(ctx, 20*time.Second, "the program serves", func() (bool, string) {
		said, err := os.ReadFile(p.log)
		if err != nil {
			return false, err.Error()
		}
		line, _, whole := strings.Cut(string(said), "\n")
		address, ok := strings.CutPrefix(line, "listening on http://")
		p.address = address
		return whole && ok, line
	})
	if err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// mount writes the values of a Secret as files, as kubelet does.
func mount(secret *corev1.Secret, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mounting Secret %s: %w", secret.Name, err)
	}
	for key, value := range secret.Data {
		if err := os.WriteFile(filepath.Join(dir, key), value, 0o600); err != nil {
			return fmt.Errorf("mounting Secret %s: %w", secret.Name, err)
		}
	}
	return nil
}

// get has the program call WeChat, and returns its answer.
func (p *program) get(ctx context.Context, path string) (map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the program answers %s: %w", res.Status, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the program answers %s: %v", res.Status, answer["error"])
	}
	return answer, nil
}

// places returns the program's environment, all of its files and what it printed, each by the name of the place.
func (p *program) places() (map[string]string, error) {
	out := map[string]string{}
	for _, variable := range p.env {
		name, value, _ := strings.Cut(variable, "=")
		out["environment variable "+name] = value
	}
	err := filepath.WalkDir(p.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(p.dir, path)
		out["file "+name] = string(content)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the program's files: %w", err)
	}
	return out, addLog(out, p.log)
}

// addLog adds the content of a log.
func addLog(places map[string]string, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading a log: %w", err)
	}
	places["log "+filepath.Base(path)] = string(text)
	return nil
}

// leaks returns the places in which one of the secrets is.
func leaks(places map[string]string, secrets []token.Value) []string {
	var out []string
	for place, text := range places {
		if slices.ContainsFunc(secrets, func(s token.Value) bool { return strings.Contains(text, s.Reveal()) }) {
			out = append(out, place)
		}
	}
	slices.Sort(out)
	return out
}

// secrets returns what nobody but operator and gateway may have: the AppSecret, and every token that WeChat has issued.
func (s *stage) secrets(ctx context.Context) ([]token.Value, error) {
	ref := s.token.Spec.CredentialsSecretRef
	secret := &corev1.Secret{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, secret); err != nil {
		return nil, fmt.Errorf("reading the credentials: %w", err)
	}
	out := []token.Value{token.NewValue(string(secret.Data[ref.Key]))}
	for _, issued := range s.wechat.Tokens(s.token.Spec.AppID) {
		out = append(out, token.NewValue(issued.Token))
	}
	if len(out) < 2 || slices.ContainsFunc(out, func(v token.Value) bool { return v.Reveal() == "" }) {
		return nil, errors.New("there is no AppSecret or no token to look for")
	}
	return out, nil
}

// checkSilence returns an error if the AppSecret or a token of WeChat's is in one of the places.
func (s *stage) checkSilence(ctx context.Context, places map[string]string) error {
	secrets, err := s.secrets(ctx)
	if err != nil {
		return err
	}
	if found := leaks(places, secrets); len(found) > 0 {
		return fmt.Errorf("the AppSecret or a token of WeChat's is in: %s", strings.Join(found, ", "))
	}
	return nil
}
