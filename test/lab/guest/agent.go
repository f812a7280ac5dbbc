package guest

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/test/lab/wire"
)

// Agent runs commands for the host, each on its own connection, until it is killed. It listens in the control namespace and
// lives in the blade's.
func Agent() error {
	signal.Reset(unix.SIGTERM) // systemd ends with it what is left at a shutdown
	config, err := readConfig(ConfigFile)
	if err != nil {
		return err
	}
	listener, err := listen(config.Port)
	if err != nil {
		return err
	}
	return Serve(listener, config)
}

// Serve answers requests that come to a listener until that is closed.
func Serve(listener net.Listener, config Config) error {
	for {
		stream, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go serve(stream, config)
	}
}

// listen opens the agent's socket in the control namespace; a socket stays in the namespace where it was made.
func listen(port int) (net.Listener, error) {
	type answer struct {
		listener net.Listener
		err      error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, still in the namespace
		if err := enterFile(netSpaces+"/"+control, cloneNewNet); err != nil {
			answers <- answer{nil, err}
			return
		}
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		answers <- answer{l, err}
	}()
	a := <-answers
	return a.listener, a.err
}

// serve answers one connection: a request, then one command's streams.
func serve(stream net.Conn, config Config) {
	defer stream.Close()
	conn := wire.NewConn(stream)
	_ = stream.SetDeadline(time.Now().Add(30 * time.Second))
	kind, payload, err := conn.Receive()
	if err != nil || kind != wire.Ask {
		return
	}
	var request wire.Request
	if err := json.Unmarshal(payload, &request); err != nil {
		_ = conn.SendJSON(wire.Exit, wire.Result{Status: 125, Reason: err.Error()})
		return
	}
	if subtle.ConstantTimeCompare([]byte(request.Token), []byte(config.Token)) != 1 {
		_ = conn.SendJSON(wire.Exit, wire.Result{Status: 125, Reason: "wrong token: this is another lab"})
		return
	}
	_ = stream.SetDeadline(time.Time{})
	_ = conn.SendJSON(wire.Exit, runCommand(conn, request, config.Blade))
	// The host closes first: closing here could overtake the last frames.
	_ = stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.Copy(io.Discard, stream)
}

// openPTY makes a pseudo terminal of a size; the command gets the second file.
func openPTY(size wire.Size) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	name, err := ptySlave(master)
	if err == nil {
		err = resize(master, size)
	}
	if err == nil {
		slave, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	return master, slave, nil
}
