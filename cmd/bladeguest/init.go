package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/guests/service"
)

// runInit is process 1. It never returns: the machine powers off, reboots, or goes on.
func runInit(log *slog.Logger, args []string) {
	o, err := parse(os.Stderr, args)
	if err != nil {
		log.Error("arguments of init", "err", err)
	}
	whole := wholeMachine()
	if whole {
		mountAll(log, o.Service)
		openConsole()
	}
	svc := serviceOf(log, o)
	log.Info("bladeguest is init", "version", version, "container", !whole, "server", svc != nil)
	button := make(chan struct{}, 1)
	if whole {
		loadModules(log, svc != nil)
		// Without this ctrl-alt-del reboots at once; with it the kernel sends SIGINT.
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
		go watchPowerButton(log, button)
	}

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	if svc != nil {
		args = append([]string{"--server"}, args...)
		moreFiles(log)
	}
	how := supervise(log, args, svc, signals, button)
	endMachine(log, how, whole)
}

// moreFiles lets the service open more files than the kernel gives init: a server has one for each connection.
func moreFiles(log *slog.Logger) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 524288}); err != nil {
		log.Warn("the service has few files", "err", err)
	}
}

// serviceOf is what the machine is for besides its helper: nothing where its image names no service.
func serviceOf(log *slog.Logger, o options) *program {
	s, err := service.Load(o.Service)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		log.Error("the machine is a real server's, and its service is not known", "err", err)
	}
	return &program{Spec: s, stateFile: o.serviceState()}
}

// initPIDNamespace is the inode of the first process namespace (PROC_PID_INIT_INO, linux/proc_ns.h).
const initPIDNamespace = "pid:[4026531836]"

// wholeMachine says that the machine is ours, not a container whose manager mounts and loads what is needed. Before /proc is
// mounted nothing can be read, which is so on a machine only.
func wholeMachine() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err != nil || ns == initPIDNamespace
}

type mount struct {
	source, target, fstype, options string
	flags                           uintptr
}

// mountAll mounts what the kernel leaves to init. A root file system that is mounted already by an initial ram disk is kept. A real server,
// which has its service's file, gets shared memory too and keeps /tmp on its disk: what its program puts there is not ours to bound.
func mountAll(log *slog.Logger, serviceFile string) {
	mounts := []mount{
		{"proc", "/proc", "proc", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"sysfs", "/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", "mode=0755,size=32m", unix.MS_NOSUID | unix.MS_NODEV},
	}
	if _, err := os.Stat(serviceFile); err != nil {
		mounts = append(mounts, mount{"tmpfs", "/tmp", "tmpfs", "mode=1777,size=32m", unix.MS_NOSUID | unix.MS_NODEV})
	} else {
		mounts = append(mounts, mount{"tmpfs", "/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV})
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			log.Warn("make mount point", "target", m.target, "err", err)
		}
		err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.options)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			log.Warn("mount", "target", m.target, "err", err)
		}
	}
	// The state file lives on the root; a read-only root is told by the first save.
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT, "")
}

// openConsole makes the console standard input, output and error: the kernel could not where /dev was empty.
func openConsole() {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	for std := range 3 {
		_ = unix.Dup3(fd, std, 0)
	}
	if fd > 2 {
		_ = unix.Close(fd)
	}
}

// modules are what a machine needs of its kernel, and a director besides. IPVS loads its schedulers itself, through the kernel's own modprobe call.
var (
	modules         = []string{"vmw_vsock_virtio_transport", "virtio_net", "evdev", "button"}
	directorModules = []string{"ip_vs", "dummy"}
)

// loadModules asks once for all: on a small machine each further modprobe would cost seconds of the start.
func loadModules(log *slog.Logger, server bool) {
	names := append([]string{"-a"}, modules...)
	if !server {
		names = append(names, directorModules...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/sbin/modprobe", names...).CombinedOutput()
	if err != nil {
		log.Warn("load modules", "err", err, "said", strings.Join(strings.Fields(string(out)), " "))
	}
}

// endMachine stops every process, writes what is not on disk, and powers off or reboots; in a container the kernel turns that
// into the end of the container's processes.
func endMachine(log *slog.Logger, how int, whole bool) {
	verb, cmd := "power off", unix.LINUX_REBOOT_CMD_POWER_OFF
	if how == exitReboot {
		verb, cmd = "reboot", unix.LINUX_REBOOT_CMD_RESTART
	}
	log.Info(verb)
	_ = unix.Kill(-1, unix.SIGTERM)
	time.Sleep(300 * time.Millisecond)
	_ = unix.Kill(-1, unix.SIGKILL)
	unix.Sync()
	if whole {
		_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err := unix.Reboot(cmd); err != nil {
		log.Error(verb, "err", err)
	}
	select {}
}
