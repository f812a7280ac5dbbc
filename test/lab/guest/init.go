package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// newRoot is where the root file system is mounted before it becomes the root.
const newRoot = "/root"

// Init is the machine's first process, started by the kernel from the initramfs. It never returns: when the agent ends, or
// something cannot be done, it says why on the console and switches the machine off.
func Init() {
	config, err := boot()
	if err == nil {
		err = serveAndReap(config)
	}
	fmt.Printf("lab: machine stops: %v\n", err)
	time.Sleep(100 * time.Millisecond) // the console is slower than the power switch
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1) // a panic, then; panic=-1 makes the kernel restart and qemu ends
}

func boot() (Config, error) {
	if err := enterRoot(); err != nil {
		return Config{}, fmt.Errorf("enter root file system: %w", err)
	}
	config, err := readConfig(ConfigFile)
	if err != nil {
		return config, err
	}
	if err := mountAll(); err != nil {
		return config, err
	}
	// modprobe takes the longest by far, in an emulated processor.
	var wait sync.WaitGroup
	var errs [3]error
	wait.Go(func() { errs[0] = loadModules(config) })
	wait.Go(func() { errs[1] = mountShares(config) })
	wait.Go(func() { errs[2] = errors.Join(setIdentity(config), controlUp(config)) })
	wait.Wait()
	return config, errors.Join(append(errs[:], mountInShares(config))...)
}

// mountPoint is one line of a machine's mounts.
type mountPoint struct {
	kind, target, options string
	flags                 uintptr
}

func mountOne(m mountPoint) error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// enterRoot mounts the disk, moves what is mounted there and makes it the root. The program and its configuration come along.
func enterRoot() error {
	for _, m := range []mountPoint{{"proc", "/proc", "", 0}, {"sysfs", "/sys", "", 0}, {"devtmpfs", "/dev", "mode=755", 0}} {
		if err := mountOne(m); err != nil {
			return err
		}
	}
	files, err := os.ReadFile("/modules")
	if err != nil {
		return err
	}
	for file := range strings.FieldsSeq(string(files)) {
		if err := loadModule(filepath.Join("/lib/modules", file)); err != nil {
			return err
		}
	}
	if err := waitFor("/dev/vda", 10*time.Second); err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", newRoot, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount /dev/vda: %w", err)
	}
	if err := mountOne(mountPoint{"tmpfs", newRoot + "/run", "mode=755", unix.MS_NOSUID | unix.MS_NODEV}); err != nil {
		return err
	}
	if err := copyTree("/lab", newRoot+Folder); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := errors.Join(os.RemoveAll("/lab"), os.RemoveAll("/lib"), os.Chdir(newRoot)); err != nil {
		return err
	}
	if err := unix.Mount(newRoot, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	return errors.Join(unix.Chroot("."), os.Chdir("/"))
}

func waitFor(path string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("wait %v: %w", limit, err)
		}
	}
}

// copyTree copies the files of one flat folder, with their permissions.
func copyTree(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), data, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// mountAll mounts what systemd would on a real blade. Mounts are shared, as there.
func mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	for _, m := range []mountPoint{
		{"devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"mqueue", "/dev/mqueue", "", 0},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", 0},
		{"securityfs", "/sys/kernel/security", "", 0},
		{"debugfs", "/sys/kernel/debug", "", 0},
		{"tracefs", "/sys/kernel/tracing", "", 0},
		{"bpf", "/sys/fs/bpf", "mode=700", 0},
	} {
		if err := mountOne(m); err != nil {
			return err
		}
	}
	// A file that holds a mount namespace may not lie in a shared mount.
	if err := os.MkdirAll(Spaces, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(Spaces, Spaces, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", Spaces, "", unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/run/netns", "/run/lock", "/run/bladenet", "/var/lib/bladenet"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return enableControllers()
}

// enableControllers lets the root's cgroups use every controller, as systemd does.
func enableControllers() error {
	names, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(names)) {
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("enable controller %s: %w", name, err)
		}
	}
	return nil
}

// loadModules loads the blade's modules through modprobe, which knows their dependencies. One that finds no device (kvm_intel
// on an AMD processor) is no error: what needs it says so.
func loadModules(c Config) error {
	out, err := exec.Command("/sbin/modprobe", append([]string{"-a"}, c.Modules...)...).CombinedOutput()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		fmt.Printf("lab: modprobe: %s", out)
		return nil
	}
	return err
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", path, err)
	}
	return nil
}

func mountShares(c Config) error {
	for _, s := range c.Shares {
		if err := os.MkdirAll(s.Path, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(s.Tag, s.Path, "virtiofs", unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("mount share %s: %w", s.Tag, err)
		}
	}
	return nil
}

// mountInShares needs the shares and the module that loops.
func mountInShares(c Config) error {
	if out, err := exec.Command("/bin/sh", "-euc", c.Mounts).CombinedOutput(); err != nil {
		return fmt.Errorf("mount what is in the shares: %w: %s", err, out)
	}
	return nil
}

func setIdentity(c Config) error {
	limit := unix.Rlimit{Cur: 1 << 16, Max: 1 << 20}
	return errors.Join(
		unix.Sethostname([]byte(c.Hostname)),
		os.WriteFile("/etc/hostname", []byte(c.Hostname+"\n"), 0o644),
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit),
	)
}

// controlUp gives the agent's card a network namespace of its own, so that neither the blade's agent nor a test can cut the
// way to the machine. The blade keeps its loopback and its trunk, nothing else.
func controlUp(c Config) error {
	card, err := linkByMAC(c.MAC)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"netns", "add", control},
		{"link", "set", card, "netns", control},
		{"-n", control, "addr", "add", c.Address, "dev", card},
		{"-n", control, "link", "set", card, "up"},
	} {
		if out, err := exec.Command("/sbin/ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

func linkByMAC(mac string) (string, error) {
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return "", err
	}
	for _, link := range links {
		have, err := os.ReadFile("/sys/class/net/" + link.Name() + "/address")
		if err == nil && strings.TrimSpace(string(have)) == mac {
			return link.Name(), nil
		}
	}
	return "", fmt.Errorf("find network card %s: none of %d links", mac, len(links))
}

// serveAndReap runs the agent and waits for every process that loses its parent, or lets systemd do that. It returns when the agent has ended.
func serveAndReap(config Config) error {
	agent, err := os.StartProcess(Binary, []string{"lab", "agent"}, &os.ProcAttr{
		Dir: "/root", Env: environment(), Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	if config.Systemd {
		return fmt.Errorf("become systemd: %w", unix.Exec("/sbin/init", []string{"/sbin/init"}, environment()))
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for children: %w", err)
		}
		if pid == agent.Pid {
			return fmt.Errorf("agent ended: status %d, signal %d", status.ExitStatus(), status.Signal())
		}
	}
}

// environment is what a command starts with.
func environment() []string {
	return []string{
		"PATH=" + ownPrograms + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8", "TERM=linux",
	}
}
