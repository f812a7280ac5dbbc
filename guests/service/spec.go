package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// File is where an image of a virtual machine names its service. One without it is a director's.
const File = "/etc/bladenet/service.json"

// Spec is the program that a real server runs.
type Spec struct {
	Command []string `json:"command"`        // argument vector; its first word is an absolute path
	Halt    string   `json:"halt,omitempty"` // signal that ends it gracefully, SIGTERM when empty
}

// State is how the service is. Init writes it, the helper's worker reads it.
type State struct {
	Running  bool   `json:"running"`
	Restarts int    `json:"restarts,omitempty"` // since the machine booted
	Ended    string `json:"ended,omitempty"`    // how it ended last, or why it could not be started
}

// most bounds what is read of either file.
const most = 64 << 10

// Encode writes the file of a service.
func Encode(s Spec) ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode service: %w", err)
	}
	return append(text, '\n'), nil
}

// Decode reads the file of a service.
func Decode(text []byte) (Spec, error) {
	var s Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return Spec{}, fmt.Errorf("decode service: %w", err)
	}
	if len(s.Command) == 0 || !filepath.IsAbs(s.Command[0]) {
		return Spec{}, errors.New("decode service: its command is no absolute path")
	}
	for _, word := range s.Command {
		if strings.ContainsRune(word, 0) {
			return Spec{}, errors.New("decode service: a zero byte cannot be an argument")
		}
	}
	return s, nil
}

// Load reads the file of a service at a path.
func Load(path string) (Spec, error) {
	text, err := read(path)
	if err != nil {
		return Spec{}, fmt.Errorf("read service: %w", err)
	}
	return Decode(text)
}

// Save replaces the file with the state of a service in one step.
func (s State) Save(path string) error {
	text, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("save state of the service: %w", err)
	}
	return nil
}

// LoadState reads the state of a service; one that has none has not been started yet.
func LoadState(path string) (State, error) {
	var s State
	text, err := read(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(bytes.TrimSpace(text), &s)
	}
	if err != nil {
		return State{}, fmt.Errorf("read state of the service: %w", err)
	}
	return s, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
