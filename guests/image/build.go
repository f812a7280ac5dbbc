package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
)

// builder counts changes of this package that make another image of the same recipe.
const builder = 3

// Options of a build.
type Options struct {
	Helper    string    // path of the bladeguest binary; needed for kvm
	IfMissing bool      // return the image of the same inputs if the store has one, in milliseconds, whatever packages are newest
	Mirrors   []string  // apt sources as mmdebstrap takes them; empty: Debian's own
	Log       io.Writer // output of the tools; nil: none
	// Progress is called when a step of the build begins (took 0) and when it ended; it may be nil.
	Progress func(step string, took time.Duration)
	Now      func() time.Time // nil: the clock
}

// Build makes the image of a recipe and puts it into the store. It needs root, mmdebstrap and for kvm dpkg-deb and mke2fs. The work happens in
// a hidden folder of the store that becomes the image by one rename: an interrupted build leaves no image, and the next one
// removes what it left. If the result is in the store already, that one is returned.
func Build(ctx context.Context, r Recipe, s Store, o Options) (Image, error) {
	img, err := (&build{Options: o, recipe: r, store: s}).run(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("build image %s: %w", r.Name, err)
	}
	return img, nil
}

type build struct {
	Options
	recipe Recipe
	store  Store
	helper []byte
	work   string // hidden folder
	tree   string // root of the image's files
	image  Image
}

func (b *build) run(ctx context.Context) (Image, error) {
	if b.recipe.Kind == policy.DriverKVM {
		text, err := os.ReadFile(b.Helper)
		if err != nil {
			return Image{}, fmt.Errorf("read guest helper: %w", err)
		}
		b.helper = text
	}
	digest, err := b.recipe.digest(b.helper)
	if err != nil {
		return Image{}, err
	}
	if b.IfMissing {
		if have, ok, err := b.store.byRecipe(b.recipe.Name, digest); err != nil || ok {
			return have, err
		}
	}
	if err := os.MkdirAll(b.store.Dir, 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := b.workspace()
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	b.image = Image{
		Name: b.recipe.Name, Kind: b.recipe.Kind, Recipe: digest, Command: b.recipe.Command, Halt: b.recipe.Halt,
		Capabilities: b.recipe.Capabilities, Cmdline: b.recipe.Cmdline,
	}
	if err := b.fill(ctx); err != nil {
		return Image{}, err
	}
	return b.commit()
}

// workspace makes the hidden folder and holds a lock on it; folders whose lock nobody holds are left-overs and go.
func (b *build) workspace() (done func(), err error) {
	old, err := filepath.Glob(filepath.Join(b.store.Dir, ".[br][ue][im]*-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range old {
		if lock, err := lockDir(dir); err == nil {
			err = os.RemoveAll(dir)
			lock.Close()
			if err != nil {
				return nil, fmt.Errorf("remove left-over: %w", err)
			}
		}
	}
	b.work, err = os.MkdirTemp(b.store.Dir, ".build-"+b.recipe.Name+"-")
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(b.work)
	if err != nil {
		return nil, err
	}
	b.tree = filepath.Join(b.work, "rootfs")
	return func() {
		_ = os.RemoveAll(b.work)
		lock.Close()
	}, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (b *build) fill(ctx context.Context) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"packages", b.bootstrap},
		{"files", b.files},
		{"commands", b.commands},
	}
	if b.recipe.Kind == policy.DriverKVM {
		steps = append(steps, machineSteps(b)...)
	}
	for _, s := range steps {
		began := time.Now()
		b.progress(s.name, 0)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.progress(s.name, time.Since(began))
	}
	return nil
}

func (b *build) progress(step string, took time.Duration) {
	if b.Progress != nil {
		b.Progress(step, took)
	}
}

// bootstrap installs the packages. Documents, locales and caches stay out; what a recommended package would bring, a recipe names.
func (b *build) bootstrap(ctx context.Context) error {
	args := []string{
		"--variant=essential", "--format=directory", "--skip=output/dev",
		"--aptopt=APT::Install-Recommends false",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/lintian/*",
	}
	if len(b.recipe.Packages) > 0 {
		args = append(args, "--include="+strings.Join(b.recipe.Packages, ","))
	}
	if b.recipe.Kind == policy.DriverKVM {
		hook := filepath.Join(b.work, "fetch-kernel")
		if err := os.WriteFile(hook, []byte(fetchKernel), 0o700); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(b.work, "debs"), 0o755); err != nil {
			return err
		}
		args = append(args, "--customize-hook="+hook)
	}
	args = append(append(args, b.recipe.Suite, b.tree), b.Mirrors...)
	if err := b.tool(ctx, "", "mmdebstrap", args...); err != nil {
		return err
	}
	packages, err := b.installed()
	b.image.Packages = packages
	return err
}

// installed reads what dpkg says of the tree.
func (b *build) installed() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(b.tree, "var/lib/dpkg/status"))
	if err != nil {
		return nil, err
	}
	var out []string
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		var name, version string
		for line := range strings.Lines(paragraph) {
			if v, ok := strings.CutPrefix(line, "Package: "); ok {
				name = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "Version: "); ok {
				version = strings.TrimSpace(v)
			}
		}
		if name != "" {
			out = append(out, name+"="+version)
		}
	}
	slices.Sort(out)
	return out, nil
}

// files writes the recipe's own files. All names are resolved inside the tree, whatever links the packages put there.
func (b *build) files(context.Context) error {
	root, err := os.OpenRoot(b.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range b.recipe.Files {
		mode, err := f.mode()
		if err != nil {
			return err
		}
		if err := put(root, f.Path, []byte(f.Content), mode); err != nil {
			return err
		}
	}
	for _, c := range b.recipe.Certs {
		cert, key, err := selfSigned(c.Names, b.now())
		if err != nil {
			return fmt.Errorf("certificate %s: %w", c.Cert, err)
		}
		if err := errors.Join(put(root, c.Cert, cert, 0o644), put(root, c.Key, key, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func put(root *os.Root, path string, text []byte, mode fs.FileMode) error {
	path = strings.TrimPrefix(path, "/")
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := root.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.WriteFile(path, text, mode); err != nil {
		return err
	}
	return root.Chmod(path, mode)
}

// hostFiles are what mmdebstrap copies of the machine that builds: its name servers and its name. A guest would wait for servers that it
// cannot reach, and the same recipe would make another image elsewhere.
var hostFiles = []string{"/etc/resolv.conf", "/etc/hostname"}

// commands runs the recipe's commands inside the tree, then removes what it does not want.
func (b *build) commands(ctx context.Context) error {
	for _, c := range b.recipe.Commands {
		if err := b.tool(ctx, b.tree, "/bin/sh", "-ec", c); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(b.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, path := range hostFiles {
		if slices.ContainsFunc(b.recipe.Files, func(f File) bool { return f.Path == path }) {
			continue
		}
		if err := root.RemoveAll(strings.TrimPrefix(path, "/")); err != nil {
			return err
		}
	}
	for _, pattern := range b.recipe.Remove {
		found, err := fs.Glob(root.FS(), strings.TrimPrefix(pattern, "/"))
		if err != nil {
			return fmt.Errorf("remove %s: %w", pattern, err)
		}
		for _, path := range found {
			if err := root.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// tool runs a program in a mount namespace of its own, so that whatever ends it leaves no mount behind; inside chroot when one is given.
func (b *build) tool(ctx context.Context, chroot, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"HOME=/root", "BLADENET_DEBS=" + filepath.Join(b.work, "debs"),
	}
	for _, key := range []string{"http_proxy", "https_proxy", "no_proxy", "TMPDIR"} {
		if v, ok := os.LookupEnv(key); ok && chroot == "" {
			cmd.Env = append(cmd.Env, key+"="+v)
		}
	}
	if chroot != "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: chroot, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	tail := &tail{keep: 2000}
	cmd.Stdout, cmd.Stderr = tail, tail
	if b.Log != nil {
		cmd.Stdout, cmd.Stderr = io.MultiWriter(tail, b.Log), io.MultiWriter(tail, b.Log)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", name, context.Cause(ctx))
		}
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%s is not installed: apt-get install mmdebstrap e2fsprogs dpkg", name)
		}
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(tail.String()))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	keep int
	bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.Buffer.Write(p)
	if over := t.Len() - t.keep; over > 0 {
		t.Next(over)
	}
	return len(p), nil
}

func (b *build) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now()
}

// commit writes image.json and makes the folder an image.
func (b *build) commit() (Image, error) {
	b.image.ID = identity(b.image.Name, b.image.Recipe, b.image.Packages)
	b.image.Created = b.now().UTC().Truncate(time.Second)
	for _, scrap := range []string{"debs", "kernel", "fetch-kernel"} {
		if err := os.RemoveAll(filepath.Join(b.work, scrap)); err != nil {
			return Image{}, err
		}
	}
	size, err := usage(b.work)
	if err != nil {
		return Image{}, err
	}
	b.image.Size = size
	if have, err := b.store.Get(b.image.ID); err == nil {
		return have, nil
	}
	text, err := json.MarshalIndent(b.image, "", "  ")
	if err != nil {
		return Image{}, err
	}
	if err := os.WriteFile(filepath.Join(b.work, "image.json"), append(text, '\n'), 0o644); err != nil {
		return Image{}, err
	}
	if err := os.Chmod(b.work, 0o755); err != nil {
		return Image{}, err
	}
	if err := sync(b.work); err != nil {
		return Image{}, err
	}
	dir := filepath.Join(b.store.Dir, b.image.ID)
	if err := os.Rename(b.work, dir); err != nil {
		return Image{}, err
	}
	return b.store.Get(b.image.ID)
}

// sync writes the file system of a folder to its disk: after a power cut an image is whole or not there.
func sync(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// usage is what a folder takes on disk, in bytes.
func usage(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}

// byRecipe finds an image made of the same inputs.
func (s Store) byRecipe(name, digest string) (Image, bool, error) {
	images, err := s.List()
	if err != nil {
		return Image{}, false, err
	}
	for _, i := range images {
		if i.Name == name && i.Recipe == digest {
			return i, true, nil
		}
	}
	return Image{}, false, nil
}
