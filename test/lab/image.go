package lab

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
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
)

// suite is the Debian release of the root file system.
const suite = "bookworm"

// imageFormat counts changes of this file that change an image.
const imageFormat = "1"

// rootSize is what the VM's root file system can hold, in bytes; the file is sparse.
const rootSize = 16 << 30

//go:embed packages.txt
var packageList string

// Image is the root file system of a VM with the kernel that belongs to it. Its files never change once they are there.
type Image struct {
	Dir string // folder of the image in the cache
}

// Root is the ext4 file system, without partitions.
func (i Image) Root() string { return filepath.Join(i.Dir, "root.ext4") }

// Kernel is the kernel of the root file system.
func (i Image) Kernel() string { return filepath.Join(i.Dir, "vmlinuz") }

// Modules is an initramfs with what it takes to mount Root: the files of lib/modules and their order in the file "modules".
func (i Image) Modules() string { return filepath.Join(i.Dir, "modules.cpio") }

// warm is the capability cache of libvirt as a tar file, once a lab has left one.
func (i Image) warm(accel string) string { return filepath.Join(i.Dir, "capabilities-"+accel+".tar") }

// packages lists what packages.txt names.
func packages() []string {
	var names []string
	for line := range strings.Lines(packageList) {
		line, _, _ = strings.Cut(line, "#")
		names = append(names, strings.Fields(line)...)
	}
	return names
}

// imageKey changes with everything an image is made from, but for the archive's state on the day.
func imageKey() string {
	sum := sha256.New()
	fmt.Fprintln(sum, imageFormat, suite, rootSize, rootModules)
	fmt.Fprintln(sum, packages(), maskedUnits)
	for _, f := range rootFiles {
		fmt.Fprintf(sum, "%s %o %d\n%s", f.name, f.mode, len(f.text), f.text)
	}
	return suite + "-" + hex.EncodeToString(sum.Sum(nil))[:16]
}

// Cache is the folder of the lab's images: $BLADENET_CACHE, or bladenet below $XDG_CACHE_HOME or ~/.cache.
func Cache() (string, error) {
	if dir := os.Getenv("BLADENET_CACHE"); dir != "" {
		return filepath.Join(dir, "lab"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	return filepath.Join(dir, "bladenet", "lab"), nil
}

// EnsureImage returns the image, building it if the cache has none. It takes a minute or two then, and the network.
// Two builders do not meet: the second waits for the first and takes what it made.
func EnsureImage(ctx context.Context, log io.Writer) (Image, error) {
	cache, err := Cache()
	if err != nil {
		return Image{}, err
	}
	image := Image{Dir: filepath.Join(cache, imageKey())}
	if _, err := os.Stat(image.Dir); err == nil {
		return image, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Image{}, fmt.Errorf("make cache: %w", err)
	}
	unlock, err := lockPath(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if _, err := os.Stat(image.Dir); err == nil {
		return image, nil
	}
	if err := build(ctx, cache, image, log); err != nil {
		return Image{}, fmt.Errorf("build image: %w", err)
	}
	return image, nil
}

// build makes an image beside its place and moves it there. The caller holds the lock.
func build(ctx context.Context, cache string, image Image, log io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("only root can (files of the image have owners)")
	}
	for _, tool := range []string{"mmdebstrap", "mke2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: apt-get install mmdebstrap e2fsprogs", err)
		}
	}
	dir, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root := filepath.Join(dir, "root")
	steps := []struct {
		what string
		do   func() error
	}{
		{"install " + suite + " packages", func() error { return bootstrap(ctx, root) }},
		{"write settings", func() error { return writeRoot(root) }},
		{"take kernel and modules", func() error { return takeKernel(root, dir) }},
		{"make file system", func() error { return makeFileSystem(ctx, root, filepath.Join(dir, "root.ext4")) }},
		{"clean up", func() error { return os.RemoveAll(root) }},
	}
	for _, step := range steps {
		start := time.Now()
		fmt.Fprintf(log, "lab: image: %s ... ", step.what)
		if err := step.do(); err != nil {
			fmt.Fprintln(log, "failed")
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Fprintf(log, "%.1f s\n", time.Since(start).Seconds())
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return os.Rename(dir, image.Dir)
}

// bootstrap installs the packages into the folder root.
func bootstrap(ctx context.Context, root string) error {
	return run(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root",
		`--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include="+strings.Join(packages(), ","), suite, root)
}

// makeFileSystem puts a folder into a new ext4 file system. It has no journal: it is thrown away, never repaired.
func makeFileSystem(ctx context.Context, root, file string) error {
	return run(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-L", "bladenet-lab", "-d", root, file, fmt.Sprint(rootSize/1024))
}

// takeKernel copies the newest kernel out of a root file system, and the modules that it needs to mount that.
func takeKernel(root, dir string) error {
	kernels, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		return errors.New("no kernel in the root file system")
	}
	kernel := slices.Max(kernels)
	release := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	data, err := os.ReadFile(kernel)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), data, 0o644); err != nil {
		return err
	}
	modules, err := moduleArchive(filepath.Join(root, "lib", "modules", release), rootModules)
	if err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(dir, "modules.cpio"))
	if err != nil {
		return err
	}
	return errors.Join(modules.encode(out), out.Close())
}

// rootModules is what the kernel lacks to mount its root and to reach the host.
var rootModules = []string{"virtio_pci", "virtio_blk", "ext4", "virtio_net", "virtiofs"}

// moduleArchive packs modules and the order in which to load them, as the file "modules".
func moduleArchive(folder string, names []string) (archive, error) {
	dep, err := os.Open(filepath.Join(folder, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer dep.Close()
	table, err := parseModules(dep)
	if err != nil {
		return nil, fmt.Errorf("read modules.dep: %w", err)
	}
	builtin, err := os.ReadFile(filepath.Join(folder, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for file := range strings.Lines(string(builtin)) {
		table.files[moduleName(file)] = ""
	}
	files, err := table.order(names...)
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return f == "" })
	a := archive{"modules": {0o644, []byte(strings.Join(files, "\n") + "\n")}}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return nil, err
		}
		a["lib/modules/"+file] = archiveFile{0o644, data}
	}
	return a, nil
}

// lockPath takes an exclusive lock on a file that it makes if it is not there, and waits for it until ctx ends.
func lockPath(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.EISDIR) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && stillAt(f, path) {
			return func() { f.Close() }, nil
		}
		if err == nil { // what we have locked was removed meanwhile
			f.Close()
			return lockPath(ctx, path)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for lock %s: %w", path, ctx.Err()), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stillAt says whether an open file is the one that a path leads to.
func stillAt(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}

// run runs a program and puts the end of what it said into the error.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, lastLines(string(out), 10))
	}
	return nil
}

// lastLines is the end of a text, n lines at most.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
