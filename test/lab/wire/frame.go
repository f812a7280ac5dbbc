package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Kind says what a frame carries.
type Kind byte

// The kinds of a frame. The host sends Ask once, then Stdin, StdinEnd, Resize; the machine sends Started, then Stdout, Stderr,
// Taken, and Exit as the last, or only Exit if the command cannot be started.
const (
	Ask      Kind = 'q' // Request as JSON
	Stdin    Kind = 'i' // bytes for the command
	StdinEnd Kind = 'e' // nothing more to read for the command
	Resize   Kind = 'w' // Size as JSON
	Started  Kind = 's' // the command runs
	Stdout   Kind = 'o' // bytes from the command
	Stderr   Kind = 'r' // bytes from the command
	Taken    Kind = 't' // the command has taken one frame of Stdin
	Exit     Kind = 'x' // Result as JSON
)

// Window is how many frames of Stdin the host may send before the machine has taken them. Without it a command that does not
// read would keep the end of the connection from being seen.
const Window = 16

// MaxPayload bounds a frame's payload, in bytes.
const MaxPayload = 1 << 20

// Request asks for one command. Words are bytes, not text: an argument need not be UTF-8.
type Request struct {
	Token string   `json:"token"`
	Args  [][]byte `json:"args"`
	Env   [][]byte `json:"env,omitempty"`  // KEY=VALUE, over the machine's own
	Dir   string   `json:"dir,omitempty"`  // working folder, /root if empty
	In    string   `json:"in,omitempty"`   // blade, router, client, guest; empty for the blade
	Size  *Size    `json:"size,omitempty"` // give the command a terminal
}

// Size is a terminal's size in characters.
type Size struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Result is how a command ended. Status is as a shell has it: 126 and 127 for what cannot be started, 128 and the signal's
// number for a command that a signal ended.
type Result struct {
	Status int    `json:"status"`
	Reason string `json:"reason,omitempty"` // why it was not started
}

// Conn sends and receives frames. Send may be called from several goroutines, Receive from one.
type Conn struct {
	r  *bufio.Reader
	mu sync.Mutex
	w  io.Writer
}

// NewConn makes a Conn over a stream.
func NewConn(stream io.ReadWriter) *Conn {
	return &Conn{r: bufio.NewReaderSize(stream, 64<<10), w: stream}
}

// Send writes one frame.
func (c *Conn) Send(kind Kind, payload []byte) error {
	frame := make([]byte, 5, 5+len(payload))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(payload)))
	frame = append(frame, payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.w.Write(frame)
	return err
}

// SendJSON writes one frame with a value as its payload.
func (c *Conn) SendJSON(kind Kind, value any) error {
	payload, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.Send(kind, payload)
}

// Receive reads one frame; io.EOF means that the other side has closed the connection between two frames.
func (c *Conn) Receive() (Kind, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(c.r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("receive frame: %d bytes announced, %d allowed", n, MaxPayload)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return 0, nil, fmt.Errorf("receive frame: %w", err)
	}
	return Kind(header[0]), payload, nil
}
