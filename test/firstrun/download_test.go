// SPDX-License-Identifier: Apache-2.0

// Package firstrun tests what make demo and make test do on a machine that is new to them.
package firstrun

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// What a binary of these tests says: where it is from.
	downloaded, built = "downloaded", "built"
	off               = "off"
)

// minorVersion returns the version of Kubernetes that is built, such as v1.37.
func minorVersion(t *testing.T) string {
	t.Helper()
	module, err := os.ReadFile("../../hack/controlplane/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v\d+\.\d+)\.\d+`).FindSubmatch(module)
	if found == nil {
		t.Fatal("go.mod names no version of Kubernetes")
	}
	return string(found[1])
}

// tools are the programs that the scripts need beside go and curl. For those that a system has not the scripts know others.
func tools() []string {
	return []string{
		"awk", "basename", "bash", "cat", "chmod", "cut", "dirname", "env", "flock", "grep", "gzip", "head", "ln", "mkdir", "mktemp", "mv", "od",
		"rm", "sed", "sha256sum", "sha512sum", "shasum", "tail", "tar", "tr", "uname",
	}
}

// builder stands in for go and builds at once, because the real binaries take ten minutes.
const builder = `#!/usr/bin/env bash
case " $* " in
*" build "*) ;;
*) exec %q "$@" ;;
esac
while [[ $1 != -o ]]; do shift; done
echo built >"$2"
`

// machine has a copy of the scripts with a checksum of the test's own, an empty cache, and a server with the archive.
type machine struct {
	*testing.T

	dir string
	// release and name are those of the archive for this platform.
	release, name string
	archive       []byte
	// mirror is the URL of the server, which answers requests for the archive by answer.
	mirror string
	answer http.HandlerFunc
	// gets counts the requests for the archive itself; others only ask whether it is there.
	gets atomic.Int32
}

// newMachine returns a machine with the programs that are named, besides those that are needed anyway.
func newMachine(t *testing.T, programs ...string) *machine {
	t.Helper()
	m := &machine{T: t, dir: t.TempDir(), archive: pack(t), release: "envtest-" + minorVersion(t) + ".0"}
	m.name = m.release + "-" + runtime.GOOS + "-" + runtime.GOARCH + ".tar.gz"
	m.answer = m.serve
	for _, name := range []string{"build-cached.sh", "controlplane/build.sh", "controlplane/download.sh", "controlplane/go.mod",
		"controlplane/go.sum"} {
		m.copy("hack/" + name)
	}
	m.pin(m.name, m.archive)
	goPath, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	m.write("bin/go", fmt.Sprintf(builder, goPath))
	for _, name := range append(tools(), programs...) {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if err := os.Symlink(path, filepath.Join(m.dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/mirror/"+m.release+"/"+m.name {
			http.NotFound(w, r)
			return
		}
		if r.Method == http.MethodGet && r.URL.RawQuery == "" {
			m.gets.Add(1)
		}
		m.answer(w, r)
	}))
	t.Cleanup(server.Close)
	m.mirror = server.URL + "/mirror"
	return m
}

// serve answers as GitHub does, which sends each request on to another server, with a page for people who do not go there by themselves.
func (m *machine) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery == "" {
		http.Redirect(w, r, r.URL.Path+"?signed", http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.archive))
}

// needCurl skips the test where curl is not installed. CI installs it, see .ci/run, so there it is a failure.
func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("curl is missing, and CI must run every test")
	}
	t.Skip("curl is not installed")
}

// pack returns an archive like those of setup-envtest.
func pack(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := tar.NewWriter(zip)
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		text := downloaded + "\n"
		path := "controller-tools/envtest/" + name
		err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pin makes the checksum of an archive the one that is pinned for a name.
func (m *machine) pin(name string, archive []byte) {
	m.Helper()
	m.write("hack/controlplane/envtest.sha512", fmt.Sprintf("# The comment names %s.\n%x  %s\n", name, sha512.Sum512(archive), name))
}

// copy copies a file of the repository.
func (m *machine) copy(name string) {
	m.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		m.Fatal(err)
	}
	m.write(name, string(text))
}

// write writes a file that can be run.
func (m *machine) write(name, text string) {
	m.Helper()
	path := filepath.Join(m.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
		m.Fatal(err)
	}
}

// outcome is what a run of the script came to.
type outcome struct {
	folder, says string
	err          error
}

// run runs build.sh with a setting of WECHAT_TOKEN_OPERATOR_DOWNLOAD, after a prelude of the shell that may be empty.
func (m *machine) run(prelude, setting string, names ...string) outcome {
	m.Helper()
	args := append([]string{"-c", prelude + ` exec "$0" "$@"`, "hack/controlplane/build.sh"}, names...)
	cmd := exec.CommandContext(m.Context(), "bash", args...)
	cmd.Dir = m.dir
	// Nothing else of what the test itself runs with.
	cmd.Env = []string{
		"PATH=" + filepath.Join(m.dir, "bin"), "HOME=" + os.Getenv("HOME"),
		"WECHAT_TOKEN_OPERATOR_CACHE=" + filepath.Join(m.dir, "cache"), "WECHAT_TOKEN_OPERATOR_DOWNLOAD=" + setting,
	}
	var out, says strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &says
	err := cmd.Run()
	return outcome{folder: strings.TrimSpace(out.String()), says: says.String(), err: err}
}

// must returns the outcome of a run that has to work.
func (m *machine) must(setting string, names ...string) outcome {
	m.Helper()
	o := m.run("", setting, names...)
	if o.err != nil {
		m.Fatalf("%v: %s", o.err, o.says)
	}
	return o
}

// from returns where the binaries of a folder are from, in the order of their names, and fails for one that is not whole or cannot be run.
func (m *machine) from(folder string, names ...string) string {
	m.Helper()
	var from []string
	for _, name := range names {
		path := filepath.Join(folder, name)
		text, err := os.ReadFile(path)
		if err != nil {
			m.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode()&0o100 == 0 {
			m.Errorf("%s cannot be run: %v", path, err)
		}
		from = append(from, strings.TrimSuffix(string(text), "\n"))
	}
	return strings.Join(from, " ")
}

// leftovers fails if the cache has anything else than binaries and locks.
func (m *machine) leftovers() {
	m.Helper()
	err := filepath.WalkDir(filepath.Join(m.dir, "cache"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(entry.Name(), ".") && !strings.HasSuffix(entry.Name(), ".lock") {
			m.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		m.Error(err)
	}
}

// TestDownload looks at what is downloaded, what is built, and what a second run finds.
func TestDownload(t *testing.T) {
	needCurl(t)
	t.Run("three", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		o := m.must(m.mirror)
		if got := m.from(o.folder, "etcd", "kube-apiserver", "kubectl"); got != "downloaded downloaded downloaded" {
			t.Error(got)
		}
		if !strings.Contains(o.says, "looking for "+m.mirror) || !strings.Contains(o.says, "at most 3 minutes") {
			t.Errorf("it does not say what it does and how long that takes: %s", o.says)
		}
		m.leftovers()
		if again := m.must(m.mirror, "etcd", "kubectl"); again.folder != o.folder || again.says != "" || m.gets.Load() != 1 {
			t.Errorf("a second run looked for %+v after %d downloads", again, m.gets.Load())
		}
		if off := m.must(off, "etcd"); off.folder == o.folder || m.from(off.folder, "etcd") != built {
			t.Errorf("after a download, one without a download returned %+v", off)
		}
	})
	t.Run("what an archive has not", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		names := []string{"etcd", "kube-apiserver", "kubectl", "kube-controller-manager"}
		for range 2 {
			o := m.must(m.mirror, names...)
			if got := m.from(o.folder, names...); got != "downloaded downloaded downloaded built" {
				t.Error(got)
			}
		}
	})
	t.Run("a node is built", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		o := m.must(m.mirror, "all")
		if got := m.from(o.folder, "etcd", "kube-apiserver", "kubectl", "kubelet"); got != "built built built built" || m.gets.Load() != 0 {
			t.Error(got)
		}
		// What is built already is as good.
		if again := m.must(m.mirror, "etcd", "kube-controller-manager"); again.folder != o.folder || again.says != "" {
			t.Errorf("built binaries were not found: %+v", again)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		both := make(chan struct{})
		arrived := sync.OnceFunc(func() { close(both) })
		m.answer = func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				if m.gets.Load() == 2 {
					arrived()
				}
				select {
				case <-both:
				case <-r.Context().Done():
				}
			}
			m.serve(w, r)
		}
		var runs [2]outcome
		var wait sync.WaitGroup
		for i := range runs {
			wait.Go(func() { runs[i] = m.run("", m.mirror) })
		}
		wait.Wait()
		for _, o := range runs {
			if o.err != nil || o.folder != runs[0].folder {
				t.Fatalf("%+v", o)
			}
		}
		if got := m.from(runs[0].folder, "etcd", "kube-apiserver", "kubectl"); got != "downloaded downloaded downloaded" {
			t.Error(got)
		}
		m.leftovers()
	})
	t.Run("binaries of one's own", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		m.write("own/etcd", "own")
		o := m.run("export KUBEBUILDER_ASSETS=own;", m.mirror, "etcd")
		if o.err != nil || m.from(o.folder, "etcd") != "own" || m.gets.Load() != 0 {
			t.Errorf("%+v", o)
		}
	})
	t.Run("no curl", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t)
		if o := m.must(m.mirror, "etcd"); m.from(o.folder, "etcd") != built || !strings.Contains(o.says, "curl is not installed") {
			t.Errorf("%+v", o)
		}
	})
	t.Run("a setting that is none", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		o := m.run("", "mirror.example.com", "etcd")
		if o.err == nil || o.folder != "" || !strings.Contains(o.says, "must be on, off or the URL") {
			t.Errorf("%+v", o)
		}
	})
	t.Run("a mirror with a password", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, "curl")
		o := m.must(strings.Replace(m.mirror, "//", "//user:hidden@", 1), "etcd")
		if m.from(o.folder, "etcd") != downloaded || strings.Contains(o.says, "hidden") {
			t.Errorf("%+v", o)
		}
	})
}

// Whatever is wrong with the download, the binaries are built, and one line says why.
func TestFallback(t *testing.T) {
	needCurl(t)
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<html>Log in to this network</html>")
	}
	// half sends half of the archive, and then what after does.
	half := func(m *machine, after func(*http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(m.archive)))
			if r.Method == http.MethodGet {
				_, _ = w.Write(m.archive[:len(m.archive)/2])
				w.(http.Flusher).Flush()
				after(r)
			}
		}
	}
	rows := []struct {
		name    string
		prepare func(m *machine)
		prelude string
		setting string // the mirror if it is empty
		says    string // a regular expression
	}{
		{name: "nobody listens", setting: "http://127.0.0.1:1", says: "it cannot be reached: curl: "},
		{name: "turned off", setting: off, says: "WECHAT_TOKEN_OPERATOR_DOWNLOAD is off"},
		{name: "not there", says: "it cannot be reached: curl: .*404", prepare: func(m *machine) { m.answer = http.NotFound }},
		{name: "no answer", says: "it cannot be reached: curl: .*timed out", prepare: func(m *machine) {
			m.answer = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		}},
		{name: "a login page", says: "a web page answers there", prepare: func(m *machine) { m.answer = page }},
		{name: "sent on to a login page", says: "a web page answers there", prepare: func(m *machine) {
			login := httptest.NewServer(http.HandlerFunc(page))
			m.Cleanup(login.Close)
			m.answer = http.RedirectHandler(login.URL, http.StatusFound).ServeHTTP
		}},
		{name: "a login page in the place of the archive", says: "what came is not an archive", prepare: func(m *machine) {
			m.answer = func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					page(w, r)
					return
				}
				m.serve(w, r)
			}
		}},
		{name: "no size", says: "it does not say how large it is", prepare: func(m *machine) {
			m.answer = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery != "" {
					w.(http.Flusher).Flush()
					return
				}
				w.Header().Set("Content-Length", "100")
				http.Redirect(w, r, r.URL.Path+"?signed", http.StatusFound)
			}
		}},
		{name: "half of it", says: "the download broke off: curl: ", prepare: func(m *machine) {
			m.answer = half(m, func(*http.Request) {})
		}},
		{name: "half of it and then nothing", says: "the download broke off: curl: .*too slow", prepare: func(m *machine) {
			m.answer = half(m, func(r *http.Request) { <-r.Context().Done() })
		}},
		{name: "another archive", says: "(?s)WARNING: Somebody may have changed it.*its checksum is wrong", prepare: func(m *machine) {
			m.archive = append(m.archive, 0)
		}},
		// No file may be larger than 1 KiB here, so writing fails as on a full disk.
		{name: "a full disk", says: "the download broke off: curl: .*[Ww]rit", prelude: "trap '' XFSZ; ulimit -f 1;", prepare: func(m *machine) {
			m.archive = append(m.archive, make([]byte, 1<<20)...)
			m.pin(m.name, m.archive)
		}},
		{name: "damaged before it was pinned", says: "it cannot be unpacked: ", prepare: func(m *machine) {
			m.archive = []byte("\x1f\x8bx")
			m.pin(m.name, m.archive)
		}},
		{name: "no checksum for this platform", says: "no checksum is pinned for ", prepare: func(m *machine) {
			m.pin(m.release+"-plan9-mips.tar.gz", m.archive)
		}},
		{name: "another minor version of Kubernetes", says: "the pinned archive is v1.2.3", prepare: func(m *machine) {
			m.pin(strings.Replace(m.name, m.release, "envtest-v1.2.3", 1), m.archive)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, "curl")
			if row.prepare != nil {
				row.prepare(m)
			}
			setting := row.setting
			if setting == "" {
				setting = m.mirror
			}
			o := m.run(row.prelude, setting)
			if o.err != nil {
				t.Fatalf("%v: %s", o.err, o.says)
			}
			if got := m.from(o.folder, "etcd", "kube-apiserver", "kubectl"); got != "built built built" {
				t.Error(got)
			}
			if !regexp.MustCompile(row.says).MatchString(o.says) {
				t.Errorf("%q is not in %s", row.says, o.says)
			}
			if strings.Count(o.says, "not downloaded, because ") != 1 || !strings.Contains(o.says, "from source: about 10 minutes") {
				t.Errorf("it does not say that it builds and how long that takes: %s", o.says)
			}
			m.leftovers()
		})
	}
}

// The checksums that are in use are those of one archive for each platform, of the minor version that is built. There may be none.
func TestPinned(t *testing.T) {
	t.Parallel()
	sums, err := os.ReadFile("../../hack/controlplane/envtest.sha512")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`^[0-9a-f]{128}  envtest-(v\d+\.\d+)(\.\d+)-([a-z]+-[a-z0-9]+)\.tar\.gz\n$`)
	var platforms, patches []string
	for line := range strings.Lines(string(sums)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := entry.FindStringSubmatch(line)
		if parts == nil || parts[1] != minorVersion(t) {
			t.Fatalf("not a checksum of an archive of %s: %s", minorVersion(t), line)
		}
		patches, platforms = append(patches, parts[2]), append(platforms, parts[3])
	}
	slices.Sort(platforms)
	if got := strings.Join(platforms, " "); got != "" && got != "darwin-amd64 darwin-arm64 linux-amd64 linux-arm64" {
		t.Errorf("checksums are pinned for %s", got)
	}
	if len(slices.Compact(patches)) > 1 {
		t.Errorf("checksums are pinned for several versions")
	}
}
