// Command packaging makes the Debian packages from built commands and the files beside it. It is a tool of the build and no part of
// the product: unlike that, it runs dpkg-deb.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	var b builder
	flag.StringVar(&b.version, "version", "", "`version` of the packages")
	flag.StringVar(&b.arch, "arch", "amd64", "Debian's `name` of the architecture")
	flag.StringVar(&b.bin, "bin", "bin", "`folder` of built commands")
	flag.StringVar(&b.out, "out", "build/packages", "`folder` to write packages to")
	flag.Parse()
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

type builder struct{ version, arch, bin, out string }

func (b builder) run() error {
	if b.version == "" {
		return errors.New("--version is not given")
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	for _, p := range packages() {
		file, err := b.build(p)
		if err != nil {
			return fmt.Errorf("build %s: %w", p.name, err)
		}
		fmt.Println(file)
	}
	return nil
}

// build stages a package's tree and packs it.
func (b builder) build(p pkg) (string, error) {
	tree, err := os.MkdirTemp("", "bladenet-package-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tree)
	if err := os.Chmod(tree, 0o755); err != nil {
		return "", err
	}
	for _, f := range p.files {
		if err := b.stage(tree, f); err != nil {
			return "", err
		}
	}
	if err := b.documents(tree, p); err != nil {
		return "", err
	}
	if err := b.control(tree, p); err != nil {
		return "", err
	}
	file := filepath.Join(b.out, fmt.Sprintf("%s_%s_%s.deb", p.name, b.version, b.arch))
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, file)
	cmd.Stderr = os.Stderr
	return file, cmd.Run()
}

// stage puts one file, or what a command writes, into the tree.
func (b builder) stage(tree string, f file) error {
	to := filepath.Join(tree, f.to)
	if f.dir {
		return os.MkdirAll(to, 0o755)
	}
	var data []byte
	var err error
	switch {
	case f.made != nil:
		cmd := exec.Command(filepath.Join(b.bin, f.made[0]), f.made[1:]...)
		cmd.Stderr = os.Stderr
		data, err = cmd.Output()
	case f.built:
		data, err = os.ReadFile(filepath.Join(b.bin, f.from))
	default:
		data, err = os.ReadFile(f.from)
	}
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if f.built {
		mode = 0o755
	}
	if strings.HasSuffix(f.to, ".gz") {
		if data, err = zipped(data); err != nil {
			return err
		}
	}
	return write(to, data, mode)
}

// documents adds what every Debian package has: its licence and what changed.
func (b builder) documents(tree string, p pkg) error {
	doc := filepath.Join(tree, "usr/share/doc", p.name)
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	if changes, err = zipped(changes); err != nil {
		return err
	}
	const licence = "Bladenet is licensed under the Apache License, Version 2.0; on Debian systems\nits text is in /usr/share/common-licenses/Apache-2.0.\n"
	return errors.Join(
		write(filepath.Join(doc, "changelog.gz"), changes, 0o644),
		write(filepath.Join(doc, "copyright"), []byte(licence), 0o644),
	)
}

// control writes what dpkg reads: the package's description, its configuration files and its scripts.
func (b builder) control(tree string, p pkg) error {
	size, err := sizeOf(tree)
	if err != nil {
		return err
	}
	var c strings.Builder
	fmt.Fprintf(&c, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Bladenet <bladenet@example.org>\n", p.name, b.version, b.arch)
	fmt.Fprintf(&c, "Installed-Size: %d\nSection: net\nPriority: optional\n", size>>10)
	for _, list := range []struct {
		name  string
		words []string
	}{{"Depends", p.depends}, {"Recommends", p.recommends}, {"Suggests", p.suggests}} {
		if len(list.words) > 0 {
			fmt.Fprintf(&c, "%s: %s\n", list.name, strings.ReplaceAll(strings.Join(list.words, ", "), "$VERSION", b.version))
		}
	}
	fmt.Fprintf(&c, "Description: %s\n %s\n", p.brief, strings.ReplaceAll(p.about, "\n", "\n "))
	debian := filepath.Join(tree, "DEBIAN")
	if err := write(filepath.Join(debian, "control"), []byte(c.String()), 0o644); err != nil {
		return err
	}
	var conf strings.Builder
	for _, f := range p.files {
		if strings.HasPrefix(f.to, "etc/") && !f.dir {
			fmt.Fprintf(&conf, "/%s\n", f.to)
		}
	}
	if conf.Len() > 0 {
		if err := write(filepath.Join(debian, "conffiles"), []byte(conf.String()), 0o644); err != nil {
			return err
		}
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		data, err := os.ReadFile(filepath.Join("packaging/debian", p.name+"."+script))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = write(filepath.Join(debian, script), data, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func sizeOf(tree string) (size int64, err error) {
	err = filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

func zipped(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression) // without a name and a time: equal files are equal packages
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(z, bytes.NewReader(data)); err != nil {
		return nil, err
	}
	err = z.Close()
	return b.Bytes(), err
}

// write makes a file and the folders above it, whatever the umask.
func write(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// under are the files of a folder, to be installed at the same names below /.
func under(root string) []file {
	var out []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, file{from: path, to: strings.TrimPrefix(path, root+"/")})
		}
		return err
	})
	if err != nil {
		return nil // the files are missed when they are staged
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.to, b.to) })
	return out
}
