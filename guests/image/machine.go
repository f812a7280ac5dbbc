package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/guests/service"
)

// fetchKernel is run by mmdebstrap with the tree as its argument while apt still works in it. The kernel is unpacked, not installed:
// its installation would pull an initramfs generator and half a system into the image.
const fetchKernel = `#!/bin/sh
set -e
cd "$BLADENET_DEBS"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
apt-get download "$kernel" busybox-static
`

// bootModules are what the initial file system needs to find the disk; ext4 is built into Debian's cloud kernel.
var bootModules = []string{"virtio_pci", "virtio_blk"}

// initScript is /init of the initial file system. The helper mounts everything else.
const initScript = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for m in @MODULES@; do /bin/busybox insmod /modules/$m; done
i=0
while [ ! -b /dev/vda ] && [ $i -lt 500 ]; do /bin/busybox usleep 10000; i=$((i+1)); done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root || { echo "bladenet: no root file system on /dev/vda"; exit 1; }
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/bladeguest
`

type namedStep = struct {
	name string
	do   func(context.Context) error
}

// machineSteps follow those of every image: kernel and modules into the tree, the initial file system, then the tree into a disk.
func machineSteps(b *build) []namedStep {
	return []namedStep{{"kernel", b.kernel}, {"initrd", b.initrd}, {"disk", b.disk}}
}

// kernel unpacks the kernel package, takes the modules that the recipe names, puts the helper in place of init and tells it of the service.
func (b *build) kernel(ctx context.Context) error {
	unpacked := filepath.Join(b.work, "kernel")
	debs, err := filepath.Glob(filepath.Join(b.work, "debs", "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := b.tool(ctx, "", "dpkg-deb", "-x", deb, unpacked); err != nil {
			return err
		}
		// Kernel and busybox are not in the tree's package list, but an image with another kernel is another image.
		name, rest, _ := strings.Cut(strings.TrimSuffix(filepath.Base(deb), ".deb"), "_")
		b.image.Packages = append(b.image.Packages, name+"="+strings.ReplaceAll(rest, "%3a", ":"))
	}
	slices.Sort(b.image.Packages)
	kernels, err := filepath.Glob(filepath.Join(unpacked, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("expected one kernel in %v, found %d", debs, len(kernels))
	}
	b.image.Kernel = strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	if err := os.Rename(kernels[0], filepath.Join(b.work, "vmlinuz")); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(unpacked, "lib/modules"), filepath.Join(b.tree, "usr/lib/modules")); err != nil {
		return err
	}
	if err := b.prune(ctx); err != nil {
		return err
	}
	root, err := os.OpenRoot(b.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := b.lightModprobe(root); err != nil {
		return err
	}
	if len(b.recipe.Command) > 0 {
		text, err := service.Encode(service.Spec{Command: b.recipe.Command, Halt: b.recipe.Halt})
		if err != nil {
			return err
		}
		if err := put(root, service.File, text, 0o644); err != nil {
			return err
		}
	}
	return put(root, "/sbin/bladeguest", b.helper, 0o755)
}

// lightModprobe puts the static busybox in the place of kmod's modprobe, which links a whole cryptographic library: the helper calls it
// once a module while the machine boots, and the kernel for every scheduler of IPVS.
func (b *build) lightModprobe(root *os.Root) error {
	shell, err := os.ReadFile(filepath.Join(b.work, "kernel/bin/busybox"))
	if err != nil {
		return err
	}
	if err := put(root, "/bin/busybox", shell, 0o755); err != nil {
		return err
	}
	if err := root.Remove("sbin/modprobe"); err != nil {
		return err
	}
	return root.Symlink("/bin/busybox", "sbin/modprobe")
}

// modules is the folder of the kernel's modules in the tree.
func (b *build) modules() string { return filepath.Join(b.tree, "usr/lib/modules", b.image.Kernel) }

// prune removes every module that the recipe does not need.
func (b *build) prune(ctx context.Context) error {
	if err := b.tool(ctx, b.tree, "/sbin/depmod", b.image.Kernel); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(b.modules(), "modules.dep"))
	if err != nil {
		return err
	}
	builtin, err := os.ReadFile(filepath.Join(b.modules(), "modules.builtin"))
	if err != nil {
		return err
	}
	need, err := closure(string(text), string(builtin), slices.Concat(bootModules, b.recipe.Modules))
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, path := range need {
		keep[path] = true
	}
	err = filepath.WalkDir(b.modules(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".ko") {
			return err
		}
		if rel, _ := filepath.Rel(b.modules(), path); !keep[rel] {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return b.tool(ctx, b.tree, "/sbin/depmod", b.image.Kernel)
}

// closure returns the files of modules and of all that they depend on, each after its dependencies, from the text of modules.dep. Modules that
// are built in need no file; one that is nowhere is an error.
func closure(dep, builtin string, names []string) ([]string, error) {
	path, needs := map[string]string{}, map[string][]string{}
	for line := range strings.Lines(dep) {
		file, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		path[moduleName(file)] = file
		needs[file] = strings.Fields(rest)
	}
	inside := map[string]bool{}
	for line := range strings.Lines(builtin) {
		inside[moduleName(strings.TrimSpace(line))] = true
	}
	var out []string
	seen := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, d := range needs[file] {
			add(d)
		}
		out = append(out, file)
	}
	var errs []error
	for _, n := range names {
		switch file, ok := path[moduleName(n)]; {
		case ok:
			add(file)
		case !inside[moduleName(n)]:
			errs = append(errs, fmt.Errorf("module %s: the kernel has none of that name", n))
		}
	}
	return out, errors.Join(errs...)
}

// moduleName is a module's name from its file: hyphens and underscores are one to the kernel.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// initrd writes the initial file system: busybox, the modules for the disk and a script. It is not compressed: unpacking costs a
// guest more than reading two megabytes.
func (b *build) initrd(context.Context) error {
	dep, err := os.ReadFile(filepath.Join(b.modules(), "modules.dep"))
	if err != nil {
		return err
	}
	files, err := closure(string(dep), "", bootModules)
	if err != nil {
		return err
	}
	var c archive
	for _, dir := range []string{"bin", "dev", "modules", "root"} {
		c.dir(dir)
	}
	c.console("dev/console")
	var names []string
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(b.modules(), f))
		if err != nil {
			return err
		}
		names = append(names, filepath.Base(f))
		c.file("modules/"+filepath.Base(f), text, 0o644)
	}
	shell, err := os.ReadFile(filepath.Join(b.work, "kernel/bin/busybox"))
	if err != nil {
		return err
	}
	c.file("bin/busybox", shell, 0o755)
	c.file("init", []byte(strings.ReplaceAll(initScript, "@MODULES@", strings.Join(names, " "))), 0o755)
	return os.WriteFile(filepath.Join(b.work, "initrd"), c.bytes(), 0o644)
}

// disk turns the tree into the root file system of every clone.
func (b *build) disk(ctx context.Context) error {
	size, err := b.recipe.diskSize()
	if err != nil {
		return err
	}
	b.image.DiskSize = size
	target := filepath.Join(b.work, "root.ext4")
	err = b.tool(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-J", "size=8", "-L", "root", "-d", b.tree, target, fmt.Sprintf("%dk", size>>10))
	if err != nil {
		return err
	}
	return os.RemoveAll(b.tree)
}
