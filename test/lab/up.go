package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/lab/guest"
)

// Options say what lab to start.
type Options struct {
	Name    string        // DefaultName if empty
	Binary  string        // the lab command: the machine's first process and the supervisor; this program if empty
	Source  string        // the repository, at /lab/src in the machine; found from the working folder if empty
	Images  string        // base images of guests, at /lab/images; build/images of the repository if empty
	Fleet   string        // policy files; test/fleets/one-blade of the repository if empty
	Blades  int           // how many of the fleet's blades; 1 if 0
	Agent   bool          // start bladed on each blade
	Memory  int           // MiB; 6144 if 0
	CPUs    int           // if 0, one when it is emulated (see emulatedCPUs), else two
	TTL     time.Duration // when the lab ends by itself; 3 h if 0
	Systemd bool          // is the first process, as on a real blade: services come from packages
	Keep    bool          // leave a machine that did not become ready running
	Limit   time.Duration // how long Up may take, a new image not counted; 5 min if 0
	Log     io.Writer     // what Up does, with times; nowhere if nil
}

// emulatedCPUs is how many processors qemu emulates. With two in threads of their own, 7.2 and 10.0 alike now and then lose a KVM guest of the
// machine, or the machine: on leaving the guest, its host's state is taken for the guest's. Two such guests with a timer each 20 µs
// bring it about within a minute; with one processor they do not.
const emulatedCPUs = 1

// bootModules are loaded before the first command: what a blade's services load on a real machine.
var bootModules = []string{
	"8021q", "bridge", "veth", "tun", "dummy", "nft_meta_bridge", "nf_conntrack_bridge", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc",
	"ip_vs_wlc", "ip_vs_sh", "ip_vs_mh", "overlay", "virtio_net", "vhost_net", "vhost_vsock", "kvm_amd", "kvm_intel", "loop", "macvlan",
}

// setDefaults fills in what options leave open.
func (o *Options) setDefaults() (err error) {
	if o.Name == "" {
		o.Name = DefaultName()
	}
	if o.Binary == "" {
		if o.Binary, err = os.Executable(); err != nil {
			return err
		}
	}
	if o.Source == "" {
		if o.Source, err = findSource(); err != nil {
			return err
		}
	}
	if o.Images == "" {
		o.Images = filepath.Join(o.Source, "build", "images")
	}
	if o.Fleet == "" {
		o.Fleet = filepath.Join(o.Source, "test", "fleets", "one-blade")
	}
	for _, path := range []*string{&o.Source, &o.Images, &o.Fleet} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Blades = max(o.Blades, 1)
	o.Memory = orInt(o.Memory, 6144)
	if o.TTL == 0 {
		o.TTL = 3 * time.Hour
	}
	if o.Limit == 0 {
		o.Limit = 5 * time.Minute
	}
	return os.MkdirAll(o.Images, 0o755)
}

func orInt(value, fallback int) int {
	if value == 0 {
		return fallback
	}
	return value
}

// findSource looks for the repository from the working folder upwards.
func findSource() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module github.com/bladenet/bladenet\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find repository: %s is not in it; say --source", dir)
		}
	}
}

// Up starts a lab and returns when commands run in it, its router forwards and its libvirtd answers. What a failed start
// leaves is its logs; Down or the next Up removes them.
func Up(ctx context.Context, o Options) (*Lab, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("start lab: %w", err)
	}
	l, err := Open(o.Name)
	if err != nil {
		return nil, err
	}
	u := &start{lab: l, options: o, begin: time.Now()}
	if err := u.prepare(ctx); err != nil {
		return nil, fmt.Errorf("start lab %s: %w", o.Name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limit, fmt.Errorf("not ready after %v", o.Limit))
	defer cancel()
	err = u.boot(ctx)
	if errors.Is(err, errUp) {
		return nil, fmt.Errorf("start lab %s: %w", o.Name, err)
	}
	if err == nil {
		err = l.withCause(u.settle(ctx))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start lab %s: %w", o.Name, err), u.giveUp())
	}
	u.say("ready")
	return l, nil
}

// start is one Up under way.
type start struct {
	lab      *Lab
	options  Options
	begin    time.Time
	image    Image
	again    bool // of a machine that is up: its disk is as it was left
	policy   []policy.File
	topology topology
	spec     spec
	running  running
	speaking sync.Mutex // parts of a start run at once
}

// say prints what has been done and when, in seconds from the start.
func (u *start) say(format string, args ...any) {
	u.speaking.Lock()
	defer u.speaking.Unlock()
	fmt.Fprintf(u.options.Log, "lab: %6.1f s  %s\n", time.Since(u.begin).Seconds(), fmt.Sprintf(format, args...))
}

// prepare finds out all that can be wrong before something is started.
func (u *start) prepare(ctx context.Context) (err error) {
	f, files, err := loadFleet(u.options.Fleet)
	if err != nil {
		return err
	}
	u.policy = files
	if u.topology, err = makeTopology(f, u.options.Blades); err != nil {
		return err
	}
	if o := u.options; o.Systemd && (o.Agent || o.Blades > 1) {
		return errors.New("under systemd there is one blade, and bladed comes from its package")
	}
	for _, tool := range []string{"qemu-system-x86_64", virtiofsd} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: apt-get install qemu-system-x86", err)
		}
	}
	if u.image, err = EnsureImage(ctx, u.options.Log); err != nil {
		return err
	}
	if err := u.makeRoots(ctx); err != nil {
		return err
	}
	u.begin = time.Now()
	accel, err := chooseAccel(ctx, u.image)
	if err != nil {
		return err
	}
	u.topology.Emulated = accel == "tcg"
	o := u.options
	if o.CPUs == 0 {
		o.CPUs = 2
		if u.topology.Emulated {
			o.CPUs = emulatedCPUs
		}
	}
	u.spec = spec{
		Version: specVersion, Name: o.Name, Token: rand.Text(), Accel: accel, Memory: o.Memory, CPUs: o.CPUs, TTL: o.TTL, Kernel: u.image.Kernel(),
		Root: u.image.Root(), Source: o.Source, Images: o.Images, Fleet: o.Fleet, Systemd: o.Systemd, Started: u.begin,
	}
	for _, b := range u.topology.Blades {
		u.spec.Blades = append(u.spec.Blades, b.Name)
	}
	return nil
}

// boot starts the machine and waits for its agent.
func (u *start) boot(ctx context.Context) error {
	if err := os.MkdirAll(Folder(), 0o700); err != nil {
		return err
	}
	unlock, err := lockPath(ctx, Folder())
	if err != nil {
		return err
	}
	err = u.launch()
	unlock()
	if err != nil {
		return err
	}
	u.say("started %s with %d processors, %d MiB (%s)", u.spec.Root, u.spec.CPUs, u.spec.Memory, u.spec.Accel)
	u.running, err = u.lab.awaitAgent(ctx, u.spec)
	if err != nil {
		return err
	}
	u.say("machine answers on 127.0.0.1:%d", u.running.Port)
	return os.Remove(u.lab.path(fileInitrd))
}

// errUp is why a lab is not started a second time.
var errUp = errors.New("it is up already")

// launch makes the state folder and starts the supervisor in a session and mount namespace of its own. The caller holds the
// lock of the labs' folder.
func (u *start) launch() error {
	l := u.lab
	if l.alive() {
		return errUp
	}
	if err := l.remove(); err != nil {
		return err
	}
	for _, dir := range []string{l.Dir, l.path("src"), l.path("images")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := u.writeInitrd(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	if err := l.write(fileSpec, u.spec); err != nil {
		return err
	}
	log, err := os.OpenFile(l.path(fileLog), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(u.options.Binary, "supervise", l.Name)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Dir(Folder()))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	who, err := identify(cmd.Process.Pid)
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // else it stays a zombie while this process lives
	return l.write(fileSupervisor, who)
}

// writeInitrd joins the image's modules with this program and the machine's configuration.
func (u *start) writeInitrd() error {
	modules, err := os.ReadFile(u.image.Modules())
	if err != nil {
		return err
	}
	program, err := os.ReadFile(u.options.Binary)
	if err != nil {
		return err
	}
	config := guest.Config{
		Token: u.spec.Token, Hostname: u.spec.Blades[0], Blade: u.spec.Blades[0], MAC: controlMAC, Address: controlAddress, Port: controlPort, Modules: bootModules,
		Mounts: mountRoots, Systemd: u.spec.Systemd,
	}
	if len(u.spec.Blades) > 1 {
		config.Hostname = "lab"
	}
	for _, tag := range shares {
		config.Shares = append(config.Shares, guest.Share{Tag: tag, Path: "/lab/" + tag})
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Write(modules)
	a := archive{"init": {0o755, program}, "lab/lab": {0o755, program}, "lab/lab.json": {0o600, data}}
	if err := a.encode(&b); err != nil {
		return err
	}
	return os.WriteFile(u.lab.path(fileInitrd), b.Bytes(), 0o600)
}

// giveUp ends what a failed start has started and says what it left to read.
func (u *start) giveUp() error {
	if u.options.Keep && u.lab.alive() {
		return fmt.Errorf("lab %s still runs: look into it, then lab down", u.lab.Name)
	}
	var supervisor process
	if u.lab.read(fileSupervisor, &supervisor) != nil {
		return nil
	}
	return errors.Join(supervisor.end(10*time.Second), fmt.Errorf("logs are in %s", u.lab.Dir))
}
